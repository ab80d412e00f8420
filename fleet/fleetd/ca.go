package fleetd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Followed says how far a device follows.
type Followed = enroll.Followed

// CAView is one CA of a server.
type CAView struct {
	Fingerprint string    `json:"fingerprint"` // SHA-256, hex
	Made        time.Time `json:"made"`
	Expires     time.Time `json:"expires"`
	Issues      bool      `json:"issues"`
	Known       int       `json:"known"` // devices that trust it
	Hangs       int       `json:"hangs"` // devices whose certificate, or next one, is of it
}

// CAStatus is how far a change of the CA has come.
type CAStatus struct {
	CAs     []CAView   `json:"cas"`
	Devices int        `json:"devices"` // active ones
	Waiting []Followed `json:"waiting"` // devices that the next step waits for
	Next    string     `json:"next"`
}

// desk is a server's directory in the hands of somebody who changes its face.
type desk struct {
	dir  string
	conf Config
	db   *sqlite.DB
	st   *enroll.Standing
	fs   []fleet.Follower
	all  []Followed // of fs, by st
	wait []fleet.Pending
}

// openDesk reads the directory, of a server that serves or not. Only one at a time
// changes it.
func openDesk(ctx context.Context, dir string, act func(*desk) error) (err error) {
	c, err := LoadConfig(dir)
	if err != nil {
		return err
	}
	lock, err := lockDesk(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	k, err := loadKeys(dir, c.names(), time.Now())
	if err != nil {
		return err
	}
	d := &desk{dir: dir, conf: c, st: &enroll.Standing{}}
	for _, n := range c.names() {
		d.st.Addresses = append(d.st.Addresses, wire.Address{MQTT: n})
	}
	if d.db, err = sqlite.Open(ctx, filepath.Join(dir, databaseFile)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.db.Close()) }()
	if d.fs, err = d.db.Followers(ctx); err != nil {
		return err
	}
	if d.wait, err = d.db.Pending(ctx); err != nil {
		return err
	}
	d.becomes(k.cas)
	return act(d)
}

// lockDesk keeps every other command from changing the directory.
func lockDesk(dir string) (io.Closer, error) {
	lock, err := durable.Lock(filepath.Join(dir, "desk.lock"))
	if errors.Is(err, durable.ErrLocked) {
		return nil, fleet.ErrServerDesk.With("another command is at work on %s", dir)
	}
	return lock, err
}

// audit writes down an act; what it does to files comes after it.
func (d *desk) audit(ctx context.Context, act, detail string, now time.Time) error {
	return d.db.AddAudit(ctx, fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: "server", Act: act, Object: d.conf.Name, Detail: detail})
}

func (d *desk) write(op, name string, data []byte, mode os.FileMode) error {
	return durable.WriteFile(durable.OS{}, op, filepath.Join(d.dir, name), data, mode)
}

// newest is the CA that was made last.
func (d *desk) newest() *enroll.CA {
	return slices.MaxFunc(d.st.CAs, func(a, b *enroll.CA) int { return a.Made().Compare(b.Made()) })
}

// becomes changes what the server is known by, and judges the devices by it.
func (d *desk) becomes(cas []*enroll.CA) {
	d.st.CAs, d.all = cas, nil
	for i := range d.fs {
		d.all = append(d.all, d.st.Follow(&d.fs[i]))
	}
}

// without lists the devices that do not know a CA.
func (d *desk) without(ca *enroll.CA) (out []Followed) {
	for _, f := range d.all {
		if !slices.Contains(f.Knows, ca.Name()) {
			out = append(out, f)
		}
	}
	return out
}

// besides lists the devices that do not know this CA, or whose certificates hang on
// any other, and those that wait to be accepted by a token that names another.
func (d *desk) besides(ca *enroll.CA) (out []Followed) {
	for _, f := range d.all {
		other := slices.ContainsFunc(f.Hangs, func(n string) bool { return n != ca.Name() })
		if other || len(f.Hangs) == 0 || !slices.Contains(f.Knows, ca.Name()) {
			out = append(out, f)
		}
	}
	for _, p := range d.wait {
		if !bytes.Equal(p.CA, ca.Fingerprint()) {
			out = append(out, Followed{Device: p.Device, Trouble: "it waits to be accepted, by a token that names the former CA"})
		}
	}
	return out
}

func (d *desk) status() *CAStatus {
	out := &CAStatus{Devices: len(d.fs), Waiting: []Followed{}}
	for i, c := range d.st.CAs {
		v := CAView{Fingerprint: c.Name(), Made: c.Made(), Expires: c.Expires(), Issues: i == 0}
		for _, f := range d.all {
			if slices.Contains(f.Knows, v.Fingerprint) {
				v.Known++
			}
			if slices.Contains(f.Hangs, v.Fingerprint) {
				v.Hangs++
			}
		}
		out.CAs = append(out.CAs, v)
	}
	newest := d.newest()
	switch {
	case len(d.st.CAs) == 1:
		out.Next = "none needed; 'dunlin-fleet ca rotate' makes the CA that comes after it"
	case d.st.CAs[0] != newest:
		out.Waiting = d.without(newest)
		out.Next = "when every device knows it: 'dunlin-fleet ca switch'"
	default:
		out.Waiting = d.besides(newest)
		out.Next = "when every certificate is of it: 'dunlin-fleet ca retire'"
	}
	return out
}

// CAs tells how far a change of the CA of the server in dir has come.
func CAs(ctx context.Context, dir string) (out *CAStatus, err error) {
	err = openDesk(ctx, dir, func(d *desk) error { out = d.status(); return nil })
	return out, err
}

// RotateCA makes a CA beside the one that issues. Devices learn it; nothing else
// changes yet. The key is on disk before the certificate: interrupted, it did not
// happen.
func RotateCA(ctx context.Context, dir string, now time.Time) (out *CAStatus, err error) {
	err = openDesk(ctx, dir, func(d *desk) error {
		if len(d.st.CAs) > 1 {
			return fleet.ErrCAState.With("another CA is on its way in or out already")
		}
		made := now // the order of CAs is told by their age, in seconds
		if least := d.newest().Made().Add(time.Second); made.Before(least) {
			made = least
		}
		ca, err := enroll.NewCA(d.conf.Name, made)
		if err != nil {
			return err
		}
		if err := d.audit(ctx, "ca.rotate", "new CA "+ca.Name(), now); err != nil {
			return err
		}
		cas := append(slices.Clone(d.st.CAs), ca)
		keys, err := enroll.Keys(cas)
		if err != nil {
			return err
		}
		if err := d.write("ca.keys", caKeyFile, keys, 0o600); err != nil {
			return err
		}
		if err := d.write("ca.certs", caFile, enroll.Certs(cas), 0o644); err != nil {
			return err
		}
		d.becomes(cas)
		out = d.status()
		return nil
	})
	return out, err
}

// SwitchCA has the newest CA issue, for devices and for the server itself. It is
// refused while active devices do not know it, unless forced.
func SwitchCA(ctx context.Context, dir string, force bool, now time.Time) (out *CAStatus, err error) {
	err = openDesk(ctx, dir, func(d *desk) error {
		newest := d.newest()
		if d.st.CAs[0] == newest {
			return fleet.ErrCAState.With("the newest CA issues already")
		}
		lost := d.without(newest)
		if len(lost) > 0 && !force {
			back := "they know it no longer then, and are lost"
			if d.st.CAs[0].Bridges() {
				back = "they still know it by what the former CA vouches for, until that is retired"
			}
			return fleet.ErrCADevices.With("%d of %d devices do not know the new CA: %s; if the server is shown by it, %s", len(lost), len(d.fs), named(lost), back)
		}
		if err := d.audit(ctx, "ca.switch", detail("CA "+newest.Name()+" issues", lost), now); err != nil {
			return err
		}
		rest := slices.DeleteFunc(slices.Clone(d.st.CAs), func(c *enroll.CA) bool { return c == newest })
		cas := append([]*enroll.CA{newest}, rest...)
		if err := d.write("ca.certs", caFile, enroll.Certs(cas), 0o644); err != nil {
			return err
		}
		d.becomes(cas)
		out = d.status()
		return nil
	})
	return out, err
}

// RetireCA ends every CA but the one that issues. It is refused while devices, active
// or pending, need another, unless forced: those are lost. The certificates go before the keys:
// interrupted, it has happened, and the next change sweeps.
func RetireCA(ctx context.Context, dir string, force bool, now time.Time) (out *CAStatus, err error) {
	err = openDesk(ctx, dir, func(d *desk) error {
		switch {
		case len(d.st.CAs) == 1:
			return fleet.ErrCAState.With("there is one CA, and it issues")
		case d.st.CAs[0] != d.newest():
			return fleet.ErrCAState.With("the newest CA does not issue yet: 'dunlin-fleet ca switch' comes first")
		}
		lost := d.besides(d.st.CAs[0])
		if len(lost) > 0 && !force {
			return fleet.ErrCADevices.With("%d of %d devices need the CA that would go, and would be lost: %s", len(lost), len(d.fs)+len(d.wait), named(lost))
		}
		if err := d.audit(ctx, "ca.retire", detail(standsAlone(d.st.CAs[0]), lost), now); err != nil {
			return err
		}
		d.becomes(d.st.CAs[:1])
		keys, err := enroll.Keys(d.st.CAs)
		if err != nil {
			return err
		}
		if err := d.write("ca.certs", caFile, enroll.Certs(d.st.CAs), 0o644); err != nil {
			return err
		}
		if err := d.write("ca.keys", caKeyFile, keys, 0o600); err != nil {
			return err
		}
		out = d.status()
		return nil
	})
	return out, err
}

// standsAlone begins what the audit says of the last step to a CA.
func standsAlone(ca *enroll.CA) string { return "CA " + ca.Name() + " stands alone" }

// maxNamedDevices bounds a sentence.
const maxNamedDevices = 20

func named(fs []Followed) string {
	var out []string
	for _, f := range fs[:min(len(fs), maxNamedDevices)] {
		out = append(out, f.Device)
	}
	if n := len(fs) - maxNamedDevices; n > 0 {
		out = append(out, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(out, ", ")
}

func detail(what string, lost []Followed) string {
	if len(lost) == 0 {
		return what
	}
	return what + "; forced, without " + named(lost)
}
