// Package storetest is what every store of the fleet server must keep: one suite,
// run on each implementation.
package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Store is everything that the server wants kept; its consumers' interfaces say
// what each method promises. What a method returned without error survives the
// loss of power.
type Store interface {
	Devices
	Tokens
	Identities
	Catalog
	Rollouts
	Records
	Alarms
	Signposts
	Close() error
}

// Devices are identities and what is known of them.
type Devices interface {
	Device(ctx context.Context, id string) (*fleet.Device, error)
	Devices(ctx context.Context, f fleet.DeviceFilter) ([]*fleet.Device, error)
	Targets(ctx context.Context, channel, selector string) ([]*fleet.Device, error)
	UpdateDevice(ctx context.Context, id string, change func(*fleet.Device) error) error
	SetOnline(ctx context.Context, id string, online bool, at time.Time) error
	SetOnlineExactly(ctx context.Context, ids []string) error
	SetLabels(ctx context.Context, id string, set map[string]string, remove []string, a fleet.Audit) (*fleet.Device, error)
	Revoke(ctx context.Context, id string, a fleet.Audit) error
}

// Tokens let devices and people in.
type Tokens interface {
	CreateEnrolToken(ctx context.Context, t *fleet.EnrolToken, a fleet.Audit) error
	EnrolToken(ctx context.Context, id string) (*fleet.EnrolToken, error)
	EnrolTokens(ctx context.Context) ([]*fleet.EnrolToken, error)
	DeleteEnrolToken(ctx context.Context, id string, a fleet.Audit) error
	Enrol(ctx context.Context, token string, secretHash [32]byte, d *fleet.Device, cert []byte, now time.Time) (*fleet.Device, []byte, error)
	CreateAccess(ctx context.Context, x *fleet.Access, a fleet.Audit) error
	AccessByHash(ctx context.Context, hash [32]byte) (*fleet.Access, error)
	AccessList(ctx context.Context) ([]*fleet.Access, error)
	DeleteAccess(ctx context.Context, id string, a fleet.Audit) error
}

// Identities begin, change and end.
type Identities interface {
	Formers(ctx context.Context, device string) ([]fleet.Former, error)
	EnrolledWith(ctx context.Context, device string) (*fleet.EnrolToken, error)
	AcceptDevice(ctx context.Context, d *fleet.Device, cert []byte, a fleet.Audit) error
	Pending(ctx context.Context) ([]fleet.Pending, error)
	RejectDevice(ctx context.Context, id string, a fleet.Audit) error
	RefusedSerial(ctx context.Context, token, serial string, a fleet.Audit) error
	Retire(ctx context.Context, id string, a fleet.Audit, sign func(*fleet.Wish) ([]fleet.MetaRow, error)) error
}

// Catalog is signed metadata, and the releases that it names.
type Catalog interface {
	Metadata(ctx context.Context, repo, owner, role string) (version int64, b []byte, err error)
	AllMetadata(ctx context.Context, repo, owner string) ([]fleet.MetaRow, error)
	Roots(ctx context.Context, repo string) ([][]byte, error)
	PutMetadata(ctx context.Context, rows, expect []fleet.MetaRow, releases []fleet.Release, a fleet.Audit) error
	Release(ctx context.Context, channel, model, version string) (*fleet.Release, error)
	ReleaseByPath(ctx context.Context, path string) (*fleet.Release, error)
	Releases(ctx context.Context, f fleet.ReleaseFilter) ([]*fleet.Release, error)
}

// Rollouts are rollouts, their members, and the wishes that they change.
type Rollouts interface {
	CreateRollout(ctx context.Context, r *fleet.Rollout, ms []fleet.Member, a fleet.Audit) error
	Rollout(ctx context.Context, id string) (*fleet.Rollout, error)
	Rollouts(ctx context.Context, status, after string, limit int) ([]fleet.Rollout, error)
	OpenRollouts(ctx context.Context) ([]fleet.Rollout, error)
	DeviceRollouts(ctx context.Context, device string) ([]fleet.Rollout, error)
	SetRolloutStatus(ctx context.Context, id string, from []string, to, reason string, a fleet.Audit) error
	CommitRollout(ctx context.Context, c fleet.Commit, now time.Time, sign func(*fleet.Wish) ([]fleet.MetaRow, error)) error
	Members(ctx context.Context, rollout string) ([]fleet.Member, error)
	MemberPage(ctx context.Context, rollout, after string, limit int) ([]fleet.Member, error)
	Tallies(ctx context.Context, rollouts []string) (map[string][]fleet.Tally, error)
	SettleMembers(ctx context.Context, device string, change func([]fleet.Member) []fleet.Member) error
	GateEvaluations(ctx context.Context, rollout string) ([]fleet.GateEvaluation, error)
	NewestEvaluations(ctx context.Context, rollout string) ([]fleet.GateEvaluation, error)
	AddEvaluations(ctx context.Context, epoch int64, gs []fleet.GateEvaluation) error
	Quarantines(ctx context.Context, path string, released bool) ([]fleet.Quarantine, error)
	ReleaseQuarantine(ctx context.Context, id string, a fleet.Audit) error
	Wish(ctx context.Context, device string) (*fleet.Wish, error)
	Resign(ctx context.Context, device string, sign func(*fleet.Wish) ([]fleet.MetaRow, error)) error
	Lease(ctx context.Context, name, holder string, ttl time.Duration, now time.Time) (epoch int64, ok bool, err error)
	TakeOutbox(ctx context.Context) ([]string, error)
}

// Records are what devices told and what was done.
type Records interface {
	InsertReports(ctx context.Context, rs []fleet.Report) error
	InsertSamples(ctx context.Context, ss []fleet.Sample) error
	InsertEvents(ctx context.Context, es []fleet.Event) error
	SetAcked(ctx context.Context, device string, a wire.Ack) error
	Acked(ctx context.Context, device string, epoch uint64) ([]wire.Ack, error)
	Reports(ctx context.Context, device string, limit int) ([]fleet.Report, error)
	Events(ctx context.Context, device, after string, limit int) ([]fleet.Event, error)
	Samples(ctx context.Context, device string, since int64, limit int) ([]fleet.Sample, error)
	ModelSamples(ctx context.Context, model string, since int64, each func(*fleet.Sample) error) error
	SamplesOf(ctx context.Context, model string, devices []string, since int64, each func(*fleet.Sample) error) error
	DaysOn(ctx context.Context, devices []string, since, now int64) (map[string]fleet.DaysOn, error)
	Audit(ctx context.Context, object, after string, limit int) ([]fleet.Audit, error)
	AddAudit(ctx context.Context, a fleet.Audit) error
}

// Alarms are what is wrong.
type Alarms interface {
	RaiseAlarm(ctx context.Context, x fleet.Alarm, a fleet.Audit) (fresh bool, err error)
	ClearAlarm(ctx context.Context, kind, subject string, a fleet.Audit) (there bool, err error)
	Alarms(ctx context.Context) ([]fleet.Alarm, error)
}

// Run runs the suite. Open opens the store that is kept under dir, an empty
// folder at first; it is opened again after Close.
func Run(t *testing.T, open func(t *testing.T, dir string) Store) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"devices come back as they were", devices},
		{"labels are authority over facts", labels},
		{"pages of devices", pages},
		{"presence", presence},
		{"revocation", revocation},
		{"enrolment tokens", enrolTokens},
		{"names of revoked devices", revokedNames},
		{"a device is replaced", replaced},
		{"a device is retired", retired},
		{"devices that wait", waiting},
		{"devices that wait with another token", waitingAnew},
		{"listed serials", serials},
		{"keys that have ended", endedKeys},
		{"access", access},
		{"metadata", metadata},
		{"stale changes of the catalog", stale},
		{"releases", releases},
		{"rollouts come back as they were", rollouts},
		{"evaluations that say nothing new", evaluations},
		{"quarantines", quarantines},
		{"a rollout is taken back", reverted},
		{"samples of some devices", samplesOf},
		{"hours in which devices are on", daysOn},
		{"overlapping rollouts", overlap},
		{"steering", steering},
		{"a commit is all or nothing", commit},
		{"who may commit", mayCommit},
		{"settled by a device", settled},
		{"tallies count every member once", tallies},
		{"open rollouts", openRollouts},
		{"wishes", wishes},
		{"leases", leases},
		{"records are kept once", records},
		{"acknowledgements never fall", acks},
		{"audit", audit},
		{"alarms", alarms},
		{"signposts", signposts},
		{"many at once", concurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t, dir: t.TempDir(), open: open}
			s.Store = open(t, s.dir)
			t.Cleanup(func() { s.Close() })
			c.test(s)
		})
	}
}

// suite is one test's store.
type suite struct {
	*testing.T
	Store
	dir  string
	open func(*testing.T, string) Store
}

// reopen closes the store and opens it again.
func (s *suite) reopen() {
	s.Helper()
	s.must(s.Close())
	s.Store = s.open(s.T, s.dir)
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// act is an audit row; the nth sorts after those before.
func act(n int, name, object string) fleet.Audit {
	at := start.Add(time.Duration(n) * time.Second)
	return fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, at), At: at, Actor: "acc_1", Act: name, Object: object, Detail: "{}"}
}

// enrolled makes a device of the production channel.
func (s *suite) enrolled(id string, labels map[string]string) *fleet.Device {
	s.Helper()
	tok := &fleet.EnrolToken{ID: "tok_" + id, Channel: "production", Labels: labels, Max: 1, Expires: start.Add(time.Hour), Created: start}
	s.must(s.CreateEnrolToken(s.Context(), tok, fleet.Audit{}))
	d := &fleet.Device{ID: id, Status: fleet.DeviceActive, Channel: "production", Labels: labels, Facts: map[string]string{"arch": "arm64"},
		PublicKey: []byte("key of " + id), Serial: "1f", Enrolled: start}
	got, _, err := s.Enrol(s.Context(), tok.ID, [32]byte{}, d, []byte("certificate of "+id), start)
	s.must(err)
	return got
}
