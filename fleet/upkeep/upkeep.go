// Package upkeep does what is due on a server with time alone.
package upkeep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/alarm"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/director"
)

// every is how often it is looked what is due.
const every = 10 * time.Minute

// How long before its end people hear of what they sign: time to meet, and the
// last call.
const (
	warnBefore   = 60 * 24 * time.Hour
	urgentBefore = 14 * 24 * time.Hour
)

// Service does what is due with time alone: it signs the server's metadata anew at
// half of its life, and raises an alarm where that fails, where what people sign
// is about to end, or where the server could not start again. Each alarm ends by
// itself when its cause has ended.
type Service struct {
	Catalog  *catalog.Service
	Director *director.Service
	Alarms   *alarm.Board
	// Keys reads the server's keys again and compares them with those in use.
	Keys func() error
	Dir  string
	Now  func() time.Time
	Log  *slog.Logger
}

// Run does it until ctx ends.
func (u *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		u.once(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (u *Service) once(ctx context.Context) {
	const until = "until then devices go on with what they hold; after it they take nothing new"
	err := u.Catalog.Resign(ctx)
	if errors.Is(err, fleet.ErrCatalogStale) { // somebody published meanwhile, which signed it anew
		err = nil
	}
	u.state(ctx, err, fleet.Alarm{Kind: fleet.AlarmResignCatalog, Subject: catalog.Repo, Urgent: true,
		Text: fmt.Sprintf("snapshot and timestamp cannot be signed anew: %v; they last %d days at most, %s", err, int(catalog.TimestampLife.Hours()/48), until),
		Next: "make room on the disk and look into the server's log; it is tried every 10 minutes"})
	n, err := u.Director.Resign(ctx)
	if n > 0 {
		u.Log.Info("wishes signed anew", "devices", n)
	}
	u.state(ctx, err, fleet.Alarm{Kind: fleet.AlarmResignDirector, Subject: director.Repo, Urgent: true,
		Text: fmt.Sprintf("wishes of devices cannot be signed anew: %v; they last %d days at most, %s", err, int(director.Life.Hours()/48), until),
		Next: "make room on the disk and look into the server's log; it is tried every 10 minutes"})
	err = u.Keys()
	u.state(ctx, err, fleet.Alarm{Kind: fleet.AlarmServerKeys, Subject: u.Dir, Urgent: true,
		Text: fmt.Sprintf("the key files in %s are not what the server runs with in its memory: %v; a restart would fail, or shut devices out", u.Dir, err),
		Next: "do not stop it; bring its key files back from a backup"})
	u.deadlines(ctx)
}

// state raises the alarm while there is an error, and clears it otherwise.
func (u *Service) state(ctx context.Context, err error, x fleet.Alarm) {
	switch {
	case ctx.Err() != nil: // the server stops; nothing follows from its errors
	case err != nil:
		u.Log.Error("upkeep", "code", x.Kind, "err", err)
		u.Alarms.Raise(ctx, x)
	default:
		u.Alarms.Clear(ctx, x.Kind, x.Subject)
	}
}

func (u *Service) deadlines(ctx context.Context) {
	list, err := u.Catalog.Deadlines(ctx)
	if err != nil {
		if ctx.Err() == nil {
			u.Log.Error("the ends of signed metadata are not readable", "err", err)
		}
		return
	}
	now := u.Now()
	for _, d := range list {
		x, due := expires(d, now)
		if due {
			u.Alarms.Raise(ctx, x)
		} else {
			u.Alarms.Clear(ctx, x.Kind, x.Subject)
		}
	}
}

// expires is the alarm of something that people sign; due tells whether it is
// time for it.
func expires(d catalog.Deadline, now time.Time) (x fleet.Alarm, due bool) {
	left := d.Expires.Sub(now)
	x = fleet.Alarm{Kind: fleet.AlarmExpires, Subject: d.Repo + " " + d.Role, Urgent: left <= urgentBefore,
		Next: "let the holders sign it anew with 'dunlin keys renew --due'"}
	on := d.Expires.UTC().Format(time.DateOnly)
	switch {
	case left <= 0:
		x.Text = fmt.Sprintf("%s of the %s expired on %s: devices take nothing new", d.Role, d.Repo, on)
	case left < 24*time.Hour:
		x.Text = fmt.Sprintf("%s of the %s expires within a day, on %s", d.Role, d.Repo, on)
	default:
		x.Text = fmt.Sprintf("%s of the %s expires in %d days, on %s", d.Role, d.Repo, int(left.Hours()/24), on)
	}
	return x, left <= warnBefore
}
