package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dunlin-edge/dunlin/agent/update"
	"github.com/dunlin-edge/dunlin/agent/usb"
	"github.com/dunlin-edge/dunlin/agent/wipe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Import is what became of a stick that was taken in.
type Import struct {
	Lockbox    string `json:"lockbox"`
	Generation int64  `json:"generation"`
	// Receipt is empty when it was written, else the code of why not.
	Receipt string `json:"receipt,omitempty"`
	Status  Status `json:"status"`
}

// Types of events about sticks that are not believed.
const (
	eventStick     = "usb.refused"
	eventImported  = "usb.imported"
	eventStickBlob = "usb.blob"
)

// Codes of a stick that was verified and is of no use.
const (
	codeOlder    = "usb.older"
	codeExpired  = "usb.expired"
	codeUnderWay = "usb.under_way"
)

// stickNext says for each code what to do about it.
var stickNext = map[string]string{
	usb.CodeNotOurs:   "name the folder that holds 'dunlin', exported for this device with 'dunlin usb export'",
	usb.CodeFormat:    "update the agent, or export with a dunlin of its version",
	usb.CodeMalformed: "export it again",
	usb.CodeGone:      "plug it in again",
	codeOlder:         "none needed: this device knows newer; its receipt can go home",
	codeExpired:       "export it again; its receipt can go home",
	codeUnderWay:      "leave the stick in and look at 'dunlin-agent status'; the receipt is written when it is done",
}

func (a *Agent) whoami(fsys durable.FS) (usb.Who, error) {
	fleet, err := trust.Fleet(fsys, filepath.Join(a.c.State, "trust"))
	return usb.Who{Fleet: fleet, Device: a.id.Device, Channel: a.id.Channel}, err
}

// note is what the director signed for the lockbox that the wish came in, nil when
// it came another way.
func (a *Agent) note() *wire.LockboxNote {
	var n wire.LockboxNote
	if raw := a.trust.Note(); raw == nil || json.Unmarshal(raw, &n) != nil || len(n.Nonce) != 16 || n.Share < 0 {
		return nil
	}
	return &n
}

// Import takes in the stick in a folder: its metadata is verified and followed like
// any other, its blobs are fetched while it is in, and the receipt is written when
// every model has come to rest, at the latest after wait. Errors carry a code.
func (a *Agent) Import(ctx context.Context, path string, wait time.Duration) (*Import, error) {
	s, err := usb.Open(path, a.who)
	if err != nil {
		return nil, stickError(err)
	}
	code, err := a.believe(ctx, s)
	if err != nil {
		a.log.Warn("stick refused", "path", path, "code", code, "err", err)
		a.report.Happened(update.Event{Type: eventStick, Code: code, Detail: err.Error(), Next: nextOfStick(code)})
		if code == codeOlder || code == codeExpired {
			a.receipt(s) // it is a real one; what it brings home is the same
		}
		return nil, stickError(err)
	}
	defer a.route.drop(s)
	in := &Import{Generation: a.trust.Wish().Generation}
	if note := a.note(); note != nil {
		in.Lockbox = note.ID
		a.acked(note)
	}
	a.log.Info("stick taken in", "path", path, "lockbox", in.Lockbox, "generation", in.Generation)
	a.report.Happened(update.Event{Type: eventImported, Detail: in.Lockbox})
	a.receipt(s) // it may be pulled at any time
	settled := a.settled(ctx, wait)
	if in.Receipt = usb.Code(a.receipt(s)); in.Receipt != "" {
		a.log.Warn("receipt is not written", "path", path, "code", in.Receipt)
	}
	in.Status = a.Status()
	if !settled {
		return in, &codedError{codeUnderWay, stickNext[codeUnderWay], errors.New("the update is still under way")}
	}
	return in, nil
}

// believe verifies what the stick says and has the update follow it.
func (a *Agent) believe(ctx context.Context, s *usb.Stick) (code string, err error) {
	err = a.route.take(s, func() error {
		_, err := a.trust.RefreshLockbox(ctx, s)
		if err == nil {
			err = a.learn()
		}
		return err
	})
	if err != nil {
		return stickCode(err), err
	}
	a.update.Refresh()
	return "", nil
}

// stickCode names the end of a stick: a refusal of trust is an attack, or the
// most usual thing with sticks.
func stickCode(err error) string {
	var r *trust.Refusal
	switch {
	case usb.Code(err) != "":
		return usb.Code(err)
	case !errors.As(err, &r):
		return "usb.import"
	case r.Code == trust.CodeRollback:
		return codeOlder
	case r.Code == trust.CodeFreeze:
		return codeExpired
	}
	return r.Code
}

func stickError(err error) error {
	code := stickCode(err)
	return &codedError{code, nextOfStick(code), err}
}

func nextOfStick(code string) string {
	if next := stickNext[code]; next != "" {
		return next
	}
	return "do not use this stick; ask where it comes from"
}

// acked forgets what the server had when it made the lockbox.
func (a *Agent) acked(note *wire.LockboxNote) {
	queues := map[wire.Kind]counted{wire.KindReport: {a, a.queues.Report}, wire.KindSample: {a, a.queues.Sample}, wire.KindEvent: {a, a.queues.Event}}
	for _, k := range note.Acked {
		q, ok := queues[k.Kind]
		epoch, err := strconv.ParseUint(k.Epoch, 16, 64)
		if !ok || err != nil {
			continue
		}
		if err := q.Ack(epoch, k.Sequence); err != nil {
			a.log.Error("queue is not writable", "queue", string(k.Kind), "err", err)
		}
	}
}

// settleLook is the pause between two looks at journeys under way.
const settleLook = 200 * time.Millisecond

// settled waits until every wished model has come to rest; false when it did not.
func (a *Agent) settled(ctx context.Context, wait time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(settleLook)
	defer tick.Stop()
	for !a.atRest() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

func (a *Agent) atRest() bool {
	w := a.trust.Wish()
	all, err := a.update.Status()
	if err != nil || a.update.Generation() != w.Generation {
		return false
	}
	answered := map[string]bool{}
	for _, s := range all {
		answered[s.Model] = s.Step == "" && s.Generation == w.Generation
	}
	for _, t := range w.Targets {
		var c bundle.Custom
		if json.Unmarshal(t.Custom, &c) == nil && c.Release.Kind == bundle.KindModel && !answered[c.Release.Model] {
			return false
		}
	}
	return true
}

// smallReceipt is what is tried when the stick has no room for more.
const smallReceipt = 32 << 10

// receipt writes what the device would say in a session: at most its share, and
// less when the stick is full.
func (a *Agent) receipt(s *usb.Stick) error {
	report := a.report.report()
	share := smallReceipt
	if note := a.note(); note != nil {
		share = int(min(note.Share, wire.MaxReceipt))
	}
	err := a.receiptOf(s, report, share)
	if usb.Code(err) == usb.CodeFull && share > smallReceipt {
		err = a.receiptOf(s, report, smallReceipt)
	}
	return err
}

func (a *Agent) receiptOf(s *usb.Stick, report *wire.Record, room int) error {
	r := &wire.Receipt{Device: a.id.Device, Hello: *a.report.Hello(), Report: report}
	if note := a.note(); note != nil {
		r.Lockbox = note.ID
	}
	const frame = 8 << 10 // for everything but the records
	room -= frame
	if report != nil {
		room -= len(report.Payload)
	}
	for _, q := range []struct {
		kind  wire.Kind
		share int
		from  interface {
			Waiting(maxBytes int) ([]wire.Batch, error)
		}
	}{{wire.KindEvent, room / 4, a.queues.Event}, {wire.KindReport, room / 4, a.queues.Report}, {wire.KindSample, room / 2, a.queues.Sample}} {
		batches, err := q.from.Waiting(max(0, q.share-q.share/8)) // numbers and frames of records
		if err != nil {
			a.log.Error("queue is not readable", "queue", string(q.kind), "err", err)
		}
		for _, b := range batches {
			r.Queued = append(r.Queued, wire.ReceiptBatch{Kind: q.kind, Batch: b})
		}
	}
	env, err := wire.Sign(a.id.Signer(), wire.ReceiptType, r)
	if err != nil {
		return err
	}
	b, err := wire.Encode(env)
	if err != nil {
		return err
	}
	return s.WriteReceipt(b)
}

// stickWait is how long a stick in the mount folder is attended to.
const stickWait = 24 * time.Hour

// found takes in a stick of the mount folder.
func (a *Agent) found(ctx context.Context, path string) {
	in, err := a.Import(ctx, path, stickWait)
	switch {
	case ctx.Err() != nil:
		a.log.Info("stick is gone", "path", path)
	case err != nil:
		a.log.Warn("stick is of no use", "path", path, "err", err)
	default:
		a.log.Info("stick is done with", "path", path, "lockbox", in.Lockbox, "receipt", in.Receipt)
	}
}

// ImportDirect is Import on a device whose agent does not run: it is the agent for
// as long as that takes, without a network.
func ImportDirect(ctx context.Context, c Config, path string, wait time.Duration, log *slog.Logger) (*Import, error) {
	lock, err := durable.Lock(filepath.Join(c.State, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &LocalError{"identity.missing", "nothing was ever enrolled here", "dunlin-agent enroll --token TOKEN --stick " + path}
	}
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	defer lock.Close()
	if err := wipe.Finish(durable.OS{}, c.State); err != nil {
		return nil, err
	}
	if err := enrolFromStick(c, path); err != nil {
		return nil, err
	}
	a, err := open(c, log)
	if err != nil {
		return nil, err
	}
	defer a.close()
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.update.Run(ctx) })
	g.Go(func() error { return a.report.run(ctx) })
	in, err := a.Import(ctx, path, wait)
	cancel()
	if ended := g.Wait(); err == nil && !errors.Is(ended, context.Canceled) {
		err = ended
	}
	return in, outward(err)
}

// outward is a coded error as the local client returns it.
func outward(err error) error {
	var coded *codedError
	if errors.As(err, &coded) {
		return &LocalError{coded.code, coded.Error(), coded.next}
	}
	return err
}
