// Package alarm keeps what is wrong with the server and its fleet until it is
// mended. Whoever notices a state raises it, as often as it is seen, and clears it
// when the state has ended; a person may clear what cannot end by itself.
//
// A Board is safe for concurrent use. What the store does not take, because the
// disk is full, is kept in memory and tried again, so that this too can be shown.
package alarm

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Store keeps alarms over restarts. Each change is one transaction with its audit
// row.
type Store interface {
	// RaiseAlarm stores an alarm. One of its kind and subject that is there keeps
	// its Since and gets the rest; fresh tells that there was none.
	RaiseAlarm(ctx context.Context, x fleet.Alarm, a fleet.Audit) (fresh bool, err error)
	// ClearAlarm removes an alarm; there tells that there was one. The audit row
	// is written only then.
	ClearAlarm(ctx context.Context, kind, subject string, a fleet.Audit) (there bool, err error)
	Alarms(ctx context.Context) ([]fleet.Alarm, error)
}

// Board is every alarm of a server.
type Board struct {
	Store Store
	Now   func() time.Time
	Log   *slog.Logger

	mu     sync.Mutex
	raised map[key]fleet.Alarm // as last raised; nil until the store was read
	unkept map[key]bool        // of raised: not in the store yet
}

type key struct{ kind, subject string }

// server is the actor of what no person did.
const server = "server"

// Raise says that something is wrong, and tells whether that was not said before;
// Since is filled in. Saying the same again costs nothing.
func (b *Board) Raise(ctx context.Context, x fleet.Alarm) (fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.load(ctx)
	k := key{x.Kind, x.Subject}
	have, there := b.raised[k]
	x.Since = b.Now().UTC()
	if there {
		x.Since = have.Since
	}
	if there && have == x && !b.unkept[k] {
		return false
	}
	b.set(k, x)
	if !there {
		b.Log.Warn("alarm", "code", x.Kind, "subject", x.Subject, "text", x.Text, "next", x.Next)
	}
	b.keep(ctx, k)
	return !there
}

// Clear says that something is wrong no longer, and tells whether it was. Clearing
// what was not raised costs nothing.
func (b *Board) Clear(ctx context.Context, kind, subject string) bool {
	there, err := b.clear(ctx, kind, subject, server)
	if err != nil {
		b.Log.Error("an alarm's end is not stored", "code", kind, "subject", subject, "err", err)
	}
	return there
}

// Dismiss is Clear by a person; ErrAlarmUnknown when there is none. What is still
// wrong is raised again by whoever sees it.
func (b *Board) Dismiss(ctx context.Context, kind, subject, actor string) error {
	there, err := b.clear(ctx, kind, subject, actor)
	if err == nil && !there {
		err = fleet.ErrAlarmUnknown.With("no alarm %s of %s", kind, subject)
	}
	return err
}

func (b *Board) clear(ctx context.Context, kind, subject, actor string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.load(ctx)
	k := key{kind, subject}
	if _, there := b.raised[k]; !there {
		return false, nil
	}
	if !b.unkept[k] {
		if _, err := b.Store.ClearAlarm(ctx, kind, subject, b.audit(actor, "alarm.clear", k, "")); err != nil {
			return false, err // it stays, and is cleared when it is seen to have ended again
		}
	}
	delete(b.raised, k)
	delete(b.unkept, k)
	b.Log.Info("alarm ended", "code", kind, "subject", subject, "by", actor)
	return true, nil
}

// List returns every alarm: urgent ones first, then the oldest.
func (b *Board) List(ctx context.Context) []fleet.Alarm {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.load(ctx)
	out := make([]fleet.Alarm, 0, len(b.raised))
	for k, x := range b.raised {
		if b.unkept[k] {
			b.keep(ctx, k)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(x, y fleet.Alarm) int {
		if x.Urgent != y.Urgent {
			if x.Urgent {
				return -1
			}
			return 1
		}
		return cmp.Or(x.Since.Compare(y.Since), strings.Compare(x.Kind, y.Kind), strings.Compare(x.Subject, y.Subject))
	})
	return out
}

// load reads what was raised before the server started. A store that cannot be
// read is asked again at the next call.
func (b *Board) load(ctx context.Context) {
	if b.raised != nil {
		return
	}
	xs, err := b.Store.Alarms(ctx)
	if err != nil {
		b.Log.Error("alarms are not readable", "err", err)
		return
	}
	b.raised, b.unkept = map[key]fleet.Alarm{}, map[key]bool{}
	for _, x := range xs {
		b.raised[key{x.Kind, x.Subject}] = x
	}
}

func (b *Board) set(k key, x fleet.Alarm) {
	if b.raised == nil { // the store is not readable; what it holds is lost to this run
		b.raised, b.unkept = map[key]fleet.Alarm{}, map[key]bool{}
	}
	b.raised[k], b.unkept[k] = x, true
}

func (b *Board) keep(ctx context.Context, k key) {
	x := b.raised[k]
	if _, err := b.Store.RaiseAlarm(ctx, x, b.audit(server, "alarm.raise", k, x.Text)); err != nil {
		b.Log.Error("an alarm is kept in memory only", "code", x.Kind, "subject", x.Subject, "err", err)
		return
	}
	delete(b.unkept, k)
}

func (b *Board) audit(actor, act string, k key, detail string) fleet.Audit {
	now := b.Now()
	return fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: actor, Act: act, Object: k.subject, Detail: strings.TrimSuffix(k.kind+": "+detail, ": ")}
}
