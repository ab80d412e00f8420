// Package web is the server's HTTP API: OpenAPI 3.1 made from this code, bearer
// tokens with roles, errors as RFC 9457 problems {code, detail, next}. Every
// route declares the role that it wants; a route without one does not compile
// into the table and is refused.
package web

import (
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Store is what the API reads, and the small acts that need no service.
type Store interface {
	AccessByHash(ctx context.Context, hash [32]byte) (*fleet.Access, error)
	AccessList(ctx context.Context) ([]*fleet.Access, error)
	CreateAccess(ctx context.Context, x *fleet.Access, a fleet.Audit) error
	DeleteAccess(ctx context.Context, id string, a fleet.Audit) error
	Device(ctx context.Context, id string) (*fleet.Device, error)
	Devices(ctx context.Context, f fleet.DeviceFilter) ([]*fleet.Device, error)
	SetLabels(ctx context.Context, id string, set map[string]string, remove []string, a fleet.Audit) (*fleet.Device, error)
	Revoke(ctx context.Context, id string, a fleet.Audit) error
	Wish(ctx context.Context, device string) (*fleet.Wish, error)
	Formers(ctx context.Context, device string) ([]fleet.Former, error)
	Signpost(ctx context.Context, device string) (*fleet.Signpost, error)
	EnrolTokens(ctx context.Context) ([]*fleet.EnrolToken, error)
	DeleteEnrolToken(ctx context.Context, id string, a fleet.Audit) error
	Releases(ctx context.Context, f fleet.ReleaseFilter) ([]*fleet.Release, error)
	Rollout(ctx context.Context, id string) (*fleet.Rollout, error)
	Rollouts(ctx context.Context, status, after string, limit int) ([]fleet.Rollout, error)
	MemberPage(ctx context.Context, rollout, after string, limit int) ([]fleet.Member, error)
	// Tallies counts the members of all these rollouts at once.
	Tallies(ctx context.Context, rollouts []string) (map[string][]fleet.Tally, error)
	GateEvaluations(ctx context.Context, rollout string) ([]fleet.GateEvaluation, error)
	Quarantines(ctx context.Context, path string, released bool) ([]fleet.Quarantine, error)
	NewestEvaluations(ctx context.Context, rollout string) ([]fleet.GateEvaluation, error)
	Events(ctx context.Context, device, after string, limit int) ([]fleet.Event, error)
	Samples(ctx context.Context, device string, since int64, limit int) ([]fleet.Sample, error)
	Audit(ctx context.Context, object, after string, limit int) ([]fleet.Audit, error)
}

// Rollouts creates and steers rollouts.
type Rollouts interface {
	Create(ctx context.Context, s fleet.Spec, actor string) (*fleet.Rollout, error)
	Pause(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error)
	Resume(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error)
	Abort(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error)
	Revert(ctx context.Context, id, reason, actor string) (*fleet.Rollout, error)
	Release(ctx context.Context, quarantine, reason, actor string) error
}

// Enrolment lets devices in.
type Enrolment interface {
	Enrol(ctx context.Context, r *wire.EnrolRequest) (*wire.EnrolReply, error)
	Renew(ctx context.Context, r *wire.RenewRequest) (*wire.RenewReply, error)
	// Accept lets through what of a device waits for an operator; a fingerprint that
	// is not empty must be that of the key.
	Accept(ctx context.Context, device, fingerprint, actor string) error
	// Reject refuses the key of a device that waits to be let in.
	Reject(ctx context.Context, device, actor string) error
	// NewToken makes an enrolment token; text is what a device is given.
	NewToken(ctx context.Context, r fleet.TokenRequest, actor string) (t *fleet.EnrolToken, text string, err error)
}

// Catalog takes in what publishers sign.
type Catalog interface {
	// Metadata is the newest of every role of the catalog, and the director's root.
	Metadata(ctx context.Context) ([]fleet.MetaRow, error)
	// Install takes in the JSON of a ceremony.
	Install(ctx context.Context, ceremony []byte, actor string) error
	// Amend takes in the JSON of an amendment.
	Amend(ctx context.Context, amendment []byte, actor string) error
	Ingest(ctx context.Context, role string, b []byte, actor string) ([]fleet.Release, error)
}

// Blobs keeps blobs.
type Blobs interface {
	Has(digest string) (size int64, ok bool, err error)
	Put(digest string, r io.Reader, limit int64) error
	Open(digest string) (io.ReadCloser, error)
}

// Config of the API.
type Config struct {
	Store     Store
	Rollouts  Rollouts
	Enrolment Enrolment
	Catalog   Catalog
	Blobs     Blobs
	Lockboxes Lockboxes
	Alarms    Alarms
	Drift     Drift
	Truth     Truths
	Captures  Captures
	// OnlineKeys is the JSON of the server's public online keys, and of the next ones.
	OnlineKeys func() []byte
	// CA returns the certificates of the server's CAs in PEM.
	CA func() []byte
	// Waiting says what a rollout waits for.
	Waiting func(*fleet.Rollout, []fleet.Tally, time.Time) string
	// Why says what keeps a device from changing.
	Why func(ctx context.Context, device, model string) ([]fleet.Why, error)
	// Reading puts an evaluation of a gate into words.
	Reading func(fleet.GateEvaluation) (fleet.GateReading, error)
	// Retire ends a device for good.
	Retire func(ctx context.Context, device string, a fleet.Audit) error
	// Revoked ends what lives of an identity that has ended: sessions and alarms.
	Revoked func(device string)
	// Watch returns a channel that receives whenever a rollout changed, until
	// the returned function is called.
	Watch   func(rollout string) (<-chan struct{}, func())
	Now     func() time.Time
	Version string
	Log     *slog.Logger
}

// api is the running API.
type api struct {
	Config
	huma    huma.API
	mux     *http.ServeMux
	answers answers
	limit   *limiter
}

// Limits of requests.
const (
	maxBody = 6 << 20 // signed metadata is the largest
	maxBlob = 4 << 30
)

// public marks routes that need no token.
const public = "public"

// New returns the handler of the whole API.
func New(c Config) http.Handler {
	a := &api{Config: c, mux: http.NewServeMux(), answers: answers{byKey: map[string]*answered{}}, limit: newLimiter()}
	h := huma.DefaultConfig("Dunlin fleet server", c.Version)
	h.DocsPath = "" // its pages load scripts from elsewhere
	h.SchemasPath = ""
	h.CreateHooks = nil
	h.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	useProblems()
	a.huma = humago.New(a.mux, h)
	a.huma.UseMiddleware(a.authorise)
	a.deviceRoutes()
	a.identityRoutes()
	a.rolloutRoutes()
	a.releaseRoutes()
	a.accessRoutes()
	a.rawRoutes()
	a.usbRoutes()
	a.alarmRoutes()
	a.driftRoutes()
	a.truthRoutes()
	a.captureRoutes()
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, notFound(r))
	})
	return bounded(a.mux)
}

// actorKey carries the access of a request.
type actorKey struct{}

func actor(ctx context.Context) string {
	if x, ok := ctx.Value(actorKey{}).(*fleet.Access); ok {
		return x.ID
	}
	return "nobody"
}

// roles in what they may do; a role may do what its list names.
var roles = map[string][]string{
	fleet.RoleViewer:    {fleet.RoleViewer},
	fleet.RoleOperator:  {fleet.RoleViewer, fleet.RoleOperator},
	fleet.RolePublisher: {fleet.RoleViewer, fleet.RolePublisher},
	fleet.RoleAdmin:     {fleet.RoleViewer, fleet.RoleOperator, fleet.RolePublisher, fleet.RoleAdmin},
}

// admit finds the access of a bearer token and compares its role with the one
// that a route wants.
func (a *api) admit(ctx context.Context, header, want string) (*fleet.Access, error) {
	token, ok := strings.CutPrefix(header, "Bearer ")
	if !ok || token == "" {
		return nil, fleet.ErrUnauthenticated
	}
	x, err := a.Store.AccessByHash(ctx, sha256.Sum256([]byte(token)))
	if err != nil {
		return nil, err
	}
	if !x.Expires.IsZero() && !a.Now().Before(x.Expires) {
		return nil, fleet.ErrUnauthenticated.With("the token has expired")
	}
	if !slices.Contains(roles[x.Role], want) {
		return nil, fleet.ErrForbidden.With("this needs the role %s, the token has %s", want, x.Role)
	}
	return x, nil
}

// authorise is the middleware of every route that huma serves.
func (a *api) authorise(ctx huma.Context, next func(huma.Context)) {
	want := wanted(ctx.Operation())
	if want == public {
		if err := a.limit.admit(ctx.RemoteAddr(), a.Now()); err != nil {
			ctx.SetHeader("Retry-After", "10")
			a.refuse(ctx, err)
			return
		}
		next(ctx)
		return
	}
	x, err := a.admit(ctx.Context(), ctx.Header("Authorization"), want)
	if err != nil {
		a.refuse(ctx, err)
		return
	}
	next(huma.WithValue(ctx, actorKey{}, x))
}

func (a *api) refuse(ctx huma.Context, err error) {
	p := a.problem(err)
	ctx.SetHeader("Content-Type", problemType)
	ctx.SetStatus(p.Status)
	ctx.BodyWriter().Write(p.json())
}

// audit starts the row of an act.
func (a *api) audit(ctx context.Context, act, object, detail string) fleet.Audit {
	now := a.Now()
	return fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: actor(ctx), Act: act, Object: object, Detail: detail}
}
