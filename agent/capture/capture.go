// Package capture keeps inputs that a signed order asks for and brings them to the
// queue of captures. It is the only way by which an input leaves the device, and it
// does nothing unless the device's owner allows it.
//
// Bounds: an order's own number of samples and bytes, one sample a second, the
// queue's quota; inputs that wait for feedback stay in memory, 8 MB of them. What
// matched and could not be kept is counted by reason. Nothing here waits in a
// request's way.
package capture

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/dunlin-edge/dunlin/agent/queue"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/where"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Config of a Keeper.
type Config struct {
	FS     durable.FS
	Dir    string // of the orders
	Device string
	// Allowed is the owner's word: without it every order is ignored.
	Allowed bool
	// Redact is a program that gets an input and gives back what may leave; empty:
	// none.
	Redact string
	Queue  *queue.Queue
	Quota  int64 // of the queue, bytes
	// Open verifies orders by the CAs that the device trusts.
	Open func(*wire.Envelope) (*wire.CaptureOrders, error)
	Now  func() time.Time // trusted
	// Queued is called when something is in the queue.
	Queued func()
	Log    *slog.Logger
}

// Keeper is safe for concurrent use.
type Keeper struct {
	c      Config
	active atomic.Bool // some order wants inputs
	jobs   chan job
	limit  *rate.Limiter

	mu     sync.Mutex
	number int64
	mark   []byte // of the orders as they came; nil: none did
	orders []*order
	held   held
	sent   sent
	kept   uint64 // since the start
	lost   uint64
}

// order is an order with what was done for it.
type order struct {
	wire.CaptureOrder
	expr    where.Expr
	Kept    int64             `json:"kept"`
	Used    int64             `json:"used"` // bytes
	Dropped map[string]uint64 `json:"dropped,omitempty"`
}

// stored is orders.json.
type stored struct {
	Format int      `json:"format"`
	Number int64    `json:"number"`
	Mark   []byte   `json:"mark"`
	Orders []*order `json:"orders"`
}

const (
	ordersFile   = "orders.json"
	ordersFormat = 1
	maxOrders    = 1 << 20 // bytes of the file
	perSecond    = 1       // samples
	burst        = 10
	jobRoom      = 8 // samples that wait to be written
)

// Open goes on with the orders that the disk holds. Damaged ones are as none: the
// server gives them again.
func Open(c Config) (*Keeper, error) {
	k := &Keeper{c: c, jobs: make(chan job, jobRoom), limit: rate.NewLimiter(perSecond, burst), held: newHeld(), sent: newSent()}
	if err := durable.MkdirAll(c.FS, "capture.dir", c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open captures: %w", err)
	}
	b, err := durable.ReadFile(c.FS, filepath.Join(c.Dir, ordersFile), maxOrders)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open captures: %w", err)
	}
	var s stored
	if err == nil && json.Unmarshal(b, &s) == nil && s.Format == ordersFormat {
		k.number, k.mark = s.Number, s.Mark
		for _, o := range s.Orders {
			if o == nil {
				continue
			}
			if o.expr, err = where.Parse(o.Where); err == nil {
				k.orders = append(k.orders, o)
			}
		}
	}
	if !c.Allowed && (len(k.orders) > 0 || k.mark != nil) {
		k.orders, k.mark = nil, nil
		if err := k.save(); err != nil {
			return nil, err
		}
	}
	if err := k.tidy(); err != nil {
		return nil, err
	}
	k.look()
	return k, nil
}

// save makes the orders durable; the caller holds the lock.
func (k *Keeper) save() error {
	b, err := json.Marshal(stored{ordersFormat, k.number, k.mark, k.orders})
	if err == nil {
		err = durable.WriteFile(k.c.FS, "capture.orders", filepath.Join(k.c.Dir, ordersFile), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep capture orders: %w", err)
	}
	return nil
}

// look tells requests whether anybody wants them; the caller holds the lock.
func (k *Keeper) look() {
	k.active.Store(slices.ContainsFunc(k.orders, func(o *order) bool { return !o.Stopped }))
}

// ErrOrders is wrapped where orders are refused.
var ErrOrders = errors.New("the capture orders are refused")

// Take takes in orders, when a CA that is trusted has signed them, they name this
// device and are newer than those that are held.
func (k *Keeper) Take(env *wire.Envelope) error {
	if !k.c.Allowed {
		return nil
	}
	in, err := k.c.Open(env)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOrders, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case in.Device != k.c.Device:
		return fmt.Errorf("%w: they are for %s", ErrOrders, in.Device)
	case in.Number <= k.number:
		return fmt.Errorf("%w: they are number %d, this device holds %d", ErrOrders, in.Number, k.number)
	}
	mark, err := wire.CaptureMark(in.Orders)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOrders, err)
	}
	before, number, marked := k.orders, k.number, k.mark
	k.number, k.mark, k.orders = in.Number, mark, nil
	for _, x := range in.Orders {
		expr, err := where.Parse(x.Where)
		if err != nil {
			k.c.Log.Warn("a capture is left out", "capture", x.ID, "err", err)
			continue
		}
		o := &order{CaptureOrder: x, expr: expr}
		if at := slices.IndexFunc(before, func(b *order) bool { return b.ID == x.ID }); at >= 0 {
			o.Kept, o.Used, o.Dropped = before[at].Kept, before[at].Used, before[at].Dropped
		} else {
			k.c.Log.Info("inputs are captured", "capture", x.ID, "model", x.Model, "where", x.Where, "until", time.Unix(x.Expires, 0).UTC())
		}
		k.orders = append(k.orders, o)
	}
	if err := k.save(); err != nil {
		k.number, k.mark, k.orders = number, marked, before
		return err
	}
	k.look()
	return k.tidyLocked()
}

// tidy forgets orders that are over, and what nobody wants any more.
func (k *Keeper) tidy() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.tidyLocked()
}

func (k *Keeper) tidyLocked() error {
	now, before := k.c.Now().Unix(), len(k.orders)
	k.orders = slices.DeleteFunc(k.orders, func(o *order) bool { return now >= o.Expires })
	if len(k.orders) < before {
		if err := k.save(); err != nil {
			return err
		}
		k.look()
	}
	if !k.active.Load() {
		k.held, k.sent = newHeld(), newSent()
	}
	// Inputs stay on the disk no longer than they must.
	state := k.c.Queue.State()
	if len(k.orders) > 0 && state.Last != k.c.Queue.Acked() {
		return nil
	}
	unsent, err := k.c.Queue.Clear()
	if unsent > 0 {
		k.lost += unsent
		k.c.Log.Info("captured inputs that nobody wants any more are erased", "records", unsent)
	}
	return err
}

// Held is what a hello says of captures.
func (k *Keeper) Held() *wire.CaptureHeld {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &wire.CaptureHeld{Number: k.number, Mark: k.mark, Allowed: k.c.Allowed, Kept: k.kept, Dropped: k.lost}
}

// Status is what 'dunlin-agent status' tells.
type Status struct {
	Allowed bool          `json:"allowed"`
	Redact  string        `json:"redact,omitempty"`
	Waiting int64         `json:"waiting_bytes"` // on the disk
	Orders  []OrderStatus `json:"orders,omitempty"`
}

// OrderStatus is one capture on this device.
type OrderStatus struct {
	ID      string            `json:"id"`
	Model   string            `json:"model"`
	Where   string            `json:"where"`
	Expires time.Time         `json:"expires"`
	Stopped bool              `json:"stopped,omitempty"`
	Kept    int64             `json:"kept"`
	Max     int64             `json:"max"`
	Bytes   int64             `json:"bytes"`
	Limit   int64             `json:"bytes_limit"`
	Dropped map[string]uint64 `json:"dropped,omitempty"` // by reason
}

// Status tells what is captured here.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Status{Allowed: k.c.Allowed, Redact: k.c.Redact, Waiting: k.c.Queue.Size()}
	for _, o := range k.orders {
		dropped := map[string]uint64{}
		for reason, n := range o.Dropped {
			dropped[reason] = n
		}
		s.Orders = append(s.Orders, OrderStatus{ID: o.ID, Model: o.Model, Where: o.Where, Expires: time.Unix(o.Expires, 0).UTC(), Stopped: o.Stopped,
			Kept: o.Kept, Max: o.Max, Bytes: o.Used, Limit: o.Bytes, Dropped: dropped})
	}
	return s
}
