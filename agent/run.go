package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/dunlin-edge/dunlin/agent/bond"
	"github.com/dunlin-edge/dunlin/agent/capture"
	"github.com/dunlin-edge/dunlin/agent/engine"
	"github.com/dunlin-edge/dunlin/agent/handoff"
	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/link"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/agent/queue"
	"github.com/dunlin-edge/dunlin/agent/serving"
	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/agent/state"
	"github.com/dunlin-edge/dunlin/agent/truth"
	"github.com/dunlin-edge/dunlin/agent/update"
	"github.com/dunlin-edge/dunlin/agent/usb"
	"github.com/dunlin-edge/dunlin/agent/wipe"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// built is the least time that this version can be run at.
var built = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// keepAcked is how long a server may have forgotten what it acknowledged.
const keepAcked = 48 * time.Hour

// Agent is the running device.
type Agent struct {
	c      Config
	id     *identity.Identity
	clock  *identity.Clock
	db     *state.DB
	queues *queue.Set
	trust  *trust.Client
	infer  *infer.Server
	kinds  *serving.Kinds
	loops  chan infer.Slot // slots whose workers crash again and again
	watch  *observe.Monitor
	truth  *truth.Book
	shots  *capture.Keeper // inputs on their way to the server
	update *update.Engine
	link   *link.Link
	log    *slog.Logger
	report *reporter
	renew  *bond.Renewer
	moves  *bond.Mover
	route  *route
	who    usb.Who
	damage []string
}

// Run is the device from start to stop. It serves what is installed before it
// looks for the network, and returns when everything that it started has ended.
func Run(ctx context.Context, c Config, log *slog.Logger) error {
	lock, err := durable.Lock(filepath.Join(c.State, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := wipe.Finish(durable.OS{}, c.State); err != nil {
		return err
	}
	a, err := open(c, log)
	if err != nil {
		return err
	}
	defer a.close()
	agentSocket, inferListeners, err := a.listen()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.update.Run(ctx) })
	g.Go(func() error { return a.link.Run(ctx) })
	g.Go(func() error { return a.report.run(ctx) })
	g.Go(func() error { return a.condemn(ctx) })
	g.Go(func() error { return a.shots.Run(ctx) })
	g.Go(func() error { return a.renew.Run(ctx) })
	g.Go(func() error { return a.moves.Run(ctx) })
	g.Go(func() error { return serveHTTP(ctx, agentSocket, localHandler(a, c)) })
	front := a.front()
	for _, l := range inferListeners {
		g.Go(func() error { return serveHTTP(ctx, l, front) })
	}
	g.Go(func() error { return a.notify(ctx) })
	if c.USB != "" {
		g.Go(func() error { usb.Watch(ctx, c.USB, a.who, a.found); return nil })
	}
	log.Info("running", "device", a.id.Device, "agent", Version, "listen", c.Listen)
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	log.Info("stopped", "err", err)
	return err
}

// open builds the device from what its disk holds.
func open(c Config, log *slog.Logger) (*Agent, error) {
	fsys := durable.OS{}
	a := &Agent{c: c, log: log, route: newRoute()}
	var err error
	if a.id, err = identity.Load(fsys, filepath.Join(c.State, "identity")); err != nil {
		if errors.Is(err, identity.ErrNotEnrolled) {
			return nil, &LocalError{"identity.missing", err.Error(), "dunlin-agent enroll --token TOKEN"}
		}
		return nil, err
	}
	for _, d := range []string{c.Run, filepath.Join(c.State, "cache")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	if d := a.id.Damage(); d != "" {
		a.damage = append(a.damage, d)
	}
	a.clock = identity.OpenClock(fsys, filepath.Join(c.State, "identity"), built)
	now := func() time.Time { t, _ := a.clock.Now(); return t }
	db, health, err := state.Open(c.State, state.Options{Log: log})
	if err != nil {
		return nil, err
	}
	a.db = db
	if !health.Whole() {
		a.damage = append(a.damage, fmt.Sprintf("state.db: %s; started from %s", health.Reason, health.Origin))
	}
	if a.queues, err = queue.OpenSet(fsys, filepath.Join(c.State, "queue"), int64(c.QueueMB)<<20); err != nil {
		return nil, err
	}
	if err := a.queues.Keep(keepAcked, now); err != nil {
		return nil, err
	}
	store, err := slots.Open(fsys, filepath.Join(c.State, "slots"))
	if err != nil {
		return nil, err
	}
	if a.trust, err = trust.Open(trust.Config{FS: fsys, Dir: filepath.Join(c.State, "trust"), Blobs: filepath.Join(c.State, "blobs"), Device: a.id.Device, Channel: a.id.Channel, Now: now, NowUnder: a.clock.Under}); err != nil {
		return nil, err
	}
	if a.who, err = a.whoami(fsys); err != nil {
		return nil, err
	}
	if err := a.openCaptures(fsys, now); err != nil {
		return nil, err
	}
	if err := a.openInference(fsys, now); err != nil {
		return nil, err
	}
	a.report = newReporter(a)
	a.link = a.newLink()
	a.bond()
	a.update, err = update.New(update.Config{
		Repository: repository{a}, Slots: store, DB: db, Prover: &prover{a: a}, Shadower: &prover{a: a}, Reporter: a.report, Facts: c.Facts(), Log: log.With("part", "update"),
	})
	return a, err
}

func (a *Agent) openInference(fsys durable.FS, now func() time.Time) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	a.watch, a.loops = observe.NewMonitor(now), make(chan infer.Slot, 16)
	a.truth = truth.New(truth.Config{Now: now, Window: a.watch.Window, Active: a.serving, Judged: a.shots.Judged})
	a.infer = infer.New(infer.Config{
		FS: fsys, Launcher: self, Worker: a.c.Worker, CacheDir: filepath.Join(a.c.State, "cache"), Class: a.c.Facts()["class"],
		Threads: int(a.c.Threads), Accelerators: a.c.Accelerators, Workers: int(a.c.Workers), Monitor: a.watch, Looping: a.looping,
		Log: a.log.With("part", "infer"),
	})
	engines, err := engine.New(engine.Config{FS: fsys, Engines: a.c.External, Class: a.c.Facts()["class"], Monitor: a.watch, Log: a.log.With("part", "engine")})
	if err != nil {
		return err
	}
	files := handoff.New(handoff.Config{FS: fsys, Files: a.c.Files, Prover: a.infer.Prove, Unwell: a.unwell, Log: a.log.With("part", "handoff")})
	a.kinds = serving.New(a.infer, engines, files)
	return nil
}

func (a *Agent) newLink() *link.Link {
	return link.New(link.Config{
		Device: a.id.Device, Agent: a.report, Next: func(last error) (string, *tls.Config) { return a.id.Next(last, a.clock.Trusted) },
		Queues: map[wire.Kind]link.Queue{
			wire.KindReport: counted{a, a.queues.Report}, wire.KindSample: counted{a, a.queues.Sample}, wire.KindEvent: counted{a, a.queues.Event},
			wire.KindCapture: capture.Slowly(counted{a, a.queues.Capture}),
		},
		ReconnectMin: a.c.ReconnectMin, ReconnectMax: a.c.ReconnectMax, Log: a.log.With("part", "link"),
	})
}

// close ends workers and files; it comes after everything that uses them.
func (a *Agent) close() {
	a.infer.Close()
	if err := errors.Join(a.queues.Close(), a.db.Close()); err != nil {
		a.log.Error("close", "err", err)
	}
}

// listen opens the sockets; only loopback addresses are served.
func (a *Agent) listen() (agentSocket net.Listener, front []net.Listener, err error) {
	if agentSocket, err = listenUnix(a.c.AgentSocket(), 0o600); err != nil {
		return nil, nil, err
	}
	l, err := listenUnix(a.c.InferSocket(), 0o660)
	if err != nil {
		return nil, nil, err
	}
	front = append(front, l)
	if a.c.Listen == "" {
		return agentSocket, front, nil
	}
	if l, err = net.Listen("tcp", a.c.Listen); err != nil {
		return nil, nil, fmt.Errorf("listen for inference: %w", err)
	}
	if !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		l.Close()
		return nil, nil, fmt.Errorf("listen for inference: %s is not a loopback address", a.c.Listen)
	}
	return agentSocket, append(front, l), nil
}

// notify tells systemd, where it listens, that the agent is ready, alive and
// stopping.
func (a *Agent) notify(ctx context.Context) error {
	daemon.SdNotify(false, daemon.SdNotifyReady) // nobody may be listening
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		every = time.Minute
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			return nil
		case <-tick.C:
			daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		}
	}
}

// Rollback returns a model to its previous slot by hand.
func (a *Agent) Rollback(ctx context.Context, model string) error {
	err := a.update.Rollback(ctx, model)
	if errors.Is(err, update.ErrNoWayBack) {
		return &codedError{"rollback.no_way_back", "see 'dunlin-agent status': a previous slot must be there", err}
	}
	return err
}

// Enroll gets an identity with a token and stores it with the roots that the
// token names. It returns the device's id.
func Enroll(ctx context.Context, c Config, text, name string) (string, error) {
	token, err := wire.ParseEnrolToken(text)
	if err != nil {
		return "", &LocalError{"token.malformed", err.Error(), "copy the whole line that 'dunlin device token' printed"}
	}
	if err := finishReset(c); err != nil {
		return "", err
	}
	fsys, dir := durable.OS{}, filepath.Join(c.State, "identity")
	if id, err := identity.Load(fsys, dir); err == nil {
		return "", &LocalError{"identity.exists", "this device is enrolled as " + id.Device, "dunlin-agent run"}
	}
	reply, err := identity.Enrol(ctx, fsys, dir, token, name, c.Facts())
	var refused *identity.ServerError
	switch {
	case errors.As(err, &refused):
		return "", &LocalError{refused.Code, refused.Detail, refused.Next}
	case errors.Is(err, identity.ErrFingerprint):
		return "", &LocalError{"identity.fingerprint", err.Error(), "make sure that the token is for this server, and ask for a new one"}
	case err != nil:
		return "", err
	}
	if err := trust.Install(fsys, filepath.Join(c.State, "trust"), reply.CatalogRoots, reply.DirectorRoots); err != nil {
		return "", err
	}
	return reply.Device, identity.Store(fsys, dir, token, reply)
}
