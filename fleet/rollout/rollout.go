// Package rollout changes many devices in stages and stops by itself. A rollout
// is rows, not a process: Plan is pure and says what is due now, Loop carries it
// out, each action in one transaction. Killing the server anywhere changes
// nothing.
//
// The rules of this version:
//
//   - Order within a hardware class is SHA-256(rollout id, device id). The last
//     tenth of a class, at least one device where it has two, is control: held
//     back until the last stage has passed, then changed too.
//   - A class is tried one device at a time until its first success.
//   - A release that a device refuses on evidence (check, prove, probation) halts
//     the rollout at the first refusal: golden cases and the contract's own bounds
//     do not fail by chance. docs/gates.md lists which codes are evidence.
//   - Other failed installs, faults of the device itself, what people took back by
//     hand, and silence can be chance. One holds the admissions
//     of its class until another device of the class succeeds after it; two among
//     the first ten devices halt, and so does a likelihood ratio of 200 against
//     the tolerated rate (Wald 1945; Robbins 1970).
//   - Silent is a device that acknowledged its assignment, owes its outcome and
//     was not heard of for the specification's silence. One that never
//     acknowledged is pending; a stage passes with at most a fifth of its devices
//     pending. One whose identity was revoked meanwhile is left out, and where
//     that empties a stage, the next of its class takes its place.
//   - A halted rollout never goes on by itself. Devices that have not become good
//     get back the wish that they had before.
package rollout

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Defaults of a specification.
const (
	DefaultControl = 10               // percent of each class
	DefaultBake    = 40 * time.Minute // of stages of a specification that has stages of its own
	DefaultSilence = 15 * time.Minute
)

// DefaultStages are 1; the greater of 3 and 1 %; 10 %; 50 %; the rest of each
// hardware class. Their bakes reach one look of the gates after the other, unless the
// rollout has a bake of its own.
func DefaultStages(bake fleet.Duration) []fleet.StageSpec {
	stages := []fleet.StageSpec{{Count: 1}, {Count: 3, Percent: 1}, {Percent: 10}, {Percent: 50}, {Percent: 100}}
	if bake == 0 {
		for i, b := range []time.Duration{DefaultBake, 2 * DefaultBake, 4 * DefaultBake, 4 * DefaultBake, 4 * DefaultBake} {
			stages[i].Bake = fleet.Duration(b)
		}
	}
	return stages
}

// New makes a rollout of spec over the devices with its members in their order.
// The specification is completed with the defaults.
func New(spec fleet.Spec, devices []*fleet.Device, by string, now time.Time) (*fleet.Rollout, []fleet.Member) {
	return Arrange(fleet.NewID(fleet.PrefixRollout, now), spec, devices, by, now)
}

// Arrange is New with an id that is given: the order of the devices follows from it.
func Arrange(id string, spec fleet.Spec, devices []*fleet.Device, by string, now time.Time) (*fleet.Rollout, []fleet.Member) {
	if len(spec.Stages) == 0 {
		spec.Stages = DefaultStages(spec.Bake)
	}
	if spec.Control == nil {
		c := DefaultControl
		spec.Control = &c
	}
	if spec.Bake == 0 {
		spec.Bake = fleet.Duration(DefaultBake)
	}
	if spec.Silence == 0 {
		spec.Silence = fleet.Duration(DefaultSilence)
	}
	if spec.Attempt == 0 {
		spec.Attempt = 1
	}
	r := &fleet.Rollout{
		ID: id, Spec: spec, Status: fleet.RolloutRunning,
		Devices: len(devices), Created: now, Changed: now, By: by,
	}
	members := order(r, devices)
	r.Stages = make([]fleet.Stage, len(spec.Stages)+1)
	for i := range r.Stages {
		r.Stages[i].Index = i
		for _, m := range members {
			if m.Stage <= i {
				r.Stages[i].Target++
			}
		}
	}
	return r, members
}

// order puts each class into its hash order and each member into its stage. The
// stage after the last belongs to control.
func order(r *fleet.Rollout, devices []*fleet.Device) []fleet.Member {
	classes := map[string][]fleet.Member{}
	for _, d := range devices {
		c := d.Class()
		classes[c] = append(classes[c], fleet.Member{Rollout: r.ID, Device: d.ID, Stratum: c})
	}
	var all []fleet.Member
	for _, c := range sortedKeys(classes) {
		ms := classes[c]
		slices.SortFunc(ms, func(a, b fleet.Member) int {
			x, y := rank(r.ID, a.Device), rank(r.ID, b.Device)
			return cmp.Compare(string(x[:]), string(y[:]))
		})
		treated := len(ms) - controlSize(len(ms), *r.Spec.Control)
		for i := range ms {
			ms[i].Order = i
			ms[i].Control = i >= treated
			ms[i].Stage = stageOf(r.Spec.Stages, i, treated)
		}
		all = append(all, ms...)
	}
	return all
}

func rank(rollout, device string) [sha256.Size]byte {
	return sha256.Sum256([]byte(rollout + "\x00" + device))
}

// controlSize is the rounded-down share, at least one where there are two.
func controlSize(n, percent int) int {
	if percent == 0 || n < 2 {
		return 0
	}
	return max(1, n*percent/100)
}

// stageOf is the first stage whose cumulative target reaches device i of a class
// with the given number of treated devices; devices that no stage reaches come
// with control.
func stageOf(stages []fleet.StageSpec, i, treated int) int {
	if i >= treated {
		return len(stages)
	}
	for s, st := range stages {
		if i < target(st, treated) {
			return s
		}
	}
	return len(stages)
}

// target is the cumulative number of devices of a class in a stage: the greater
// of count and percent, rounded up.
func target(s fleet.StageSpec, treated int) int {
	return min(treated, max(s.Count, (treated*s.Percent+99)/100))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Kind of an Action.
type Kind string

// Kinds of actions.
const (
	StartStage Kind = "start_stage"
	Admit      Kind = "admit"  // change one device's wish
	Silent     Kind = "silent" // a device that acknowledged is not heard of
	Bake       Kind = "bake"   // every device of the stage is good: watch
	PassStage  Kind = "pass"   // its gates passed
	Widen      Kind = "widen"  // gates suspect something: more devices of the next stages come into this one
	Hold       Kind = "hold"   // gates suspect something that they cannot show: a person is to look
	Halt       Kind = "halt"   // a gate failed
	Undo       Kind = "undo"   // give a device its former wish back
	Complete   Kind = "complete"
	Reverted   Kind = "reverted" // every device is back
)

// Action is one thing that is due.
type Action struct {
	Kind        Kind
	Stage       int
	Device      string   // Admit, Silent, Undo
	Devices     []string // Widen
	Code        string   // Halt, Hold
	Reason      string   // Halt, Hold, Widen
	Evaluations []fleet.GateEvaluation
}

// endsStage tells whether it is about what the gates said of a whole stage.
func (a Action) endsStage() bool {
	return a.Kind == PassStage || a.Kind == Complete || a.Kind == Widen || a.Kind == Hold
}

// Service creates and steers rollouts.
type Service struct {
	Store Store
	Now   func() time.Time
	// Wake makes the loop look now.
	Wake func()
}

// Store is what rollouts need kept.
type Store interface {
	// Release returns ErrReleaseUnknown when the channel has no such release.
	Release(ctx context.Context, channel, model, version string) (*fleet.Release, error)
	// Targets lists the active devices of a channel that the selector matches.
	Targets(ctx context.Context, channel, selector string) ([]*fleet.Device, error)
	// CreateRollout stores rollout, members and audit row; ErrRolloutConflict
	// when a device is in another rollout of the model that is under way.
	CreateRollout(ctx context.Context, r *fleet.Rollout, ms []fleet.Member, a fleet.Audit) error
	Rollout(ctx context.Context, id string) (*fleet.Rollout, error)
	// DaysOn says when devices were on, between two times in seconds.
	DaysOn(ctx context.Context, devices []string, since, now int64) (map[string]fleet.DaysOn, error)
	// Quarantines lists those of a release that hold, and the others on request; an
	// empty path means all releases.
	Quarantines(ctx context.Context, path string, released bool) ([]fleet.Quarantine, error)
	// ReleaseQuarantine ends one; ErrQuarantineUnknown when it does not hold.
	ReleaseQuarantine(ctx context.Context, id string, a fleet.Audit) error
	// SetRolloutStatus changes the status when the present one is among from;
	// else ErrRolloutState. Reason is kept when it is not empty.
	SetRolloutStatus(ctx context.Context, id string, from []string, to, reason string, a fleet.Audit) error
}

// Create resolves the selector, orders the devices and starts the rollout. It
// refuses a release that one of the devices cannot run.
func (s *Service) Create(ctx context.Context, spec fleet.Spec, actor string) (*fleet.Rollout, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if err := checkGates(spec.Gates); err != nil {
		return nil, err
	}
	rel, err := s.Store.Release(ctx, spec.Channel, spec.Model, spec.Version)
	if err != nil {
		return nil, err
	}
	devices, err := s.Store.Targets(ctx, spec.Channel, spec.Selector)
	if err != nil {
		return nil, err
	}
	if len(devices) == 0 {
		return nil, fleet.ErrNoDevices.With("no active device of channel %s matches %q", spec.Channel, spec.Selector)
	}
	for _, d := range devices {
		if !rel.Fits(d) {
			return nil, fleet.ErrUnfit.With("%s wants %s, which %s is not", rel.Path(), rel.Hardware, d.ID)
		}
	}
	if err := s.allowed(ctx, rel.Path(), devices); err != nil {
		return nil, err
	}
	now := s.Now()
	r, members := New(spec, devices, actor, now)
	if err := s.expect(ctx, members, now); err != nil {
		return nil, err
	}
	a := fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: actor, Act: "rollout.create", Object: r.ID,
		Detail: fmt.Sprintf("%s@%s to %d devices", spec.Model, spec.Version, len(devices))}
	if err := s.Store.CreateRollout(ctx, r, members, a); err != nil {
		return nil, err
	}
	s.Wake()
	return r, nil
}

// allowed refuses a release that is kept from the class of one of the devices.
func (s *Service) allowed(ctx context.Context, path string, devices []*fleet.Device) error {
	qs, err := s.Store.Quarantines(ctx, path, false)
	if err != nil {
		return err
	}
	for _, q := range qs {
		for _, d := range devices {
			if q.Holds(d.Class()) {
				return fleet.ErrQuarantined.With("%s is in quarantine %s on %s since %s, %s: %s", path, q.ID, cmp.Or(q.Class, "every class"), q.Since.Format(time.DateTime), q.Code, q.Reason)
			}
		}
	}
	return nil
}

// Release lets a release out of quarantine; the reason is kept.
func (s *Service) Release(ctx context.Context, id, reason, actor string) error {
	if strings.TrimSpace(reason) == "" {
		return fleet.ErrBadRequest.With("reason: say why the release may go out again")
	}
	now := s.Now()
	return s.Store.ReleaseQuarantine(ctx, id, fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: actor, Act: "quarantine.release", Object: id, Detail: reason})
}

// learnFrom is how far back the hours of devices are looked at.
const learnFrom = 7 * 24 * time.Hour

// expect finds the hours in which devices are expected to be on.
func (s *Service) expect(ctx context.Context, members []fleet.Member, now time.Time) error {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.Device
	}
	days, err := s.Store.DaysOn(ctx, names, now.Add(-learnFrom).Unix(), now.Unix())
	if err != nil {
		return err
	}
	for i := range members {
		members[i].Hours = days[members[i].Device].Learnt()
	}
	return nil
}

// Pause, Resume and Abort are acts of a person. Only a paused rollout resumes: a
// halted one never goes on.
func (s *Service) Pause(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error) {
	return s.steer(ctx, id, "rollout.pause", []string{fleet.RolloutRunning}, fleet.RolloutPaused, reason, actor)
}

// Resume lets a paused rollout go on.
func (s *Service) Resume(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error) {
	return s.steer(ctx, id, "rollout.resume", []string{fleet.RolloutPaused}, fleet.RolloutRunning, reason, actor)
}

// Abort ends a rollout; devices that have not become good get their former wish
// back.
func (s *Service) Abort(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error) {
	return s.steer(ctx, id, "rollout.abort", []string{fleet.RolloutRunning, fleet.RolloutPaused, fleet.RolloutHalted}, fleet.RolloutAborted, reason, actor)
}

// Revert gives every device that a rollout has changed back what it had before,
// whatever came of the rollout.
func (s *Service) Revert(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error) {
	from := []string{fleet.RolloutRunning, fleet.RolloutPaused, fleet.RolloutHalted, fleet.RolloutAborted, fleet.RolloutCompleted}
	return s.steer(ctx, id, "rollout.revert", from, fleet.RolloutReverting, reason, actor)
}

func (s *Service) steer(ctx context.Context, id, act string, from []string, to, reason, actor string) (*fleet.Rollout, error) {
	now := s.Now()
	a := fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: actor, Act: act, Object: id, Detail: reason}
	if err := s.Store.SetRolloutStatus(ctx, id, from, to, reason, a); err != nil {
		return nil, err
	}
	s.Wake()
	return s.Store.Rollout(ctx, id)
}
