package amend

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

// Drilled is what a rehearsal found.
type Drilled struct {
	Role  string   `json:"role"`
	Loss  Rehearse `json:"loss"`
	Theft Rehearse `json:"theft"`
}

// Rehearse is one way to lose control of a key.
type Rehearse struct {
	Thief   string   `json:"thief,omitempty"` // what the key alone allows
	Files   []string `json:"files"`           // that are signed
	Signers []string `json:"signers"`         // who signed, at least so many
	Follows bool     `json:"devices_follow"`  // an old device believes the new roots
	Before  bool     `json:"old_key_refused"` // and nothing of the old key
	Steps   []string `json:"steps"`
}

// online are the server's own roles, with what the key of each allows alone.
var online = map[string]string{
	"snapshot":  "nothing: the timestamp's key has to sign as well",
	"timestamp": "keep devices at what they have, for at most 7 days",
	"director":  "direct devices among the releases that holders signed for their channel, none below its floor",
}

// Drill plays the loss and the theft of a key, a holder's or the server's, on a copy of the ceremony
// with the same people and thresholds, and keys of its own that are thrown away: the
// real ones stay locked. What it counts are the signatures that were really needed
// until a device, which knows the first roots only, believed the result.
func Drill(dir, role string, now time.Time) (*Drilled, error) {
	cer, err := publish.OpenCeremony(dir)
	if err != nil {
		return nil, err
	}
	if role != publish.KindRoot && role != publish.KindRelease && online[role] == "" {
		return nil, refuse("drill.role", "pass root, release, snapshot, timestamp or director", "there is no drill for %q", role)
	}
	d := &Drilled{Role: role}
	if d.Loss, err = rehearse(cer, role, now, false); err != nil {
		return nil, fmt.Errorf("rehearse loss: %w", err)
	}
	if d.Theft, err = rehearse(cer, role, now, true); err != nil {
		return nil, fmt.Errorf("rehearse theft: %w", err)
	}
	return d, nil
}

// play is a copy of a ceremony whose keys are nowhere but in memory.
type play struct {
	*Begin
	cer  *publish.Ceremony
	keys map[string]*offline.Key // by place
}

func (p *play) make(where string) ([]byte, error) {
	k, err := offline.FreshKey()
	if err != nil {
		return nil, err
	}
	p.keys[where] = k
	return k.Public, nil
}

func (p *play) open(where string) (*offline.Key, error) {
	if k := p.keys[where]; k != nil {
		return k, nil
	}
	return nil, refuse("key.unknown", "none: this is a drill", "the key %s is lost", where)
}

// rehearse plays it once; the first holder is the one who loses the key.
func rehearse(real *publish.Ceremony, role string, now time.Time, theft bool) (r Rehearse, err error) {
	dir, err := os.MkdirTemp("", "drill-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	b, err := copyOf(real, dir, now)
	if err != nil {
		return r, err
	}
	cer := b.cer
	victim := cer.Joined[0].Name
	a, err := b.instead(cer, role)
	if err != nil {
		return r, err
	}
	if !theft && online[role] == "" { // it is gone; whoever stole it has a copy
		delete(b.keys, cer.Joined[0].Where(dir, role))
	}
	if r.Thief, err = thief(cer, role); err != nil {
		return r, err
	}
	for i := len(cer.Joined) - 1; i >= 0 && a.enough() != nil; i-- { // others first
		name := cer.Joined[i].Name
		if _, err := a.sign(dir, name, b.open); err != nil {
			return r, err
		}
		r.Signers = append(r.Signers, name)
	}
	if err := a.enough(); err != nil {
		return Rehearse{Thief: r.Thief, Steps: []string{"nobody can sign a successor: enrol the fleet again with a new ceremony"}}, nil
	}
	for _, p := range a.papers {
		r.Files = append(r.Files, p.file)
		text, err := p.paper.ToBytes(true)
		if err != nil {
			return r, err
		}
		a.Next.put(p.file, text)
	}
	r.Follows, r.Before = follow(a)
	r.Steps = []string{"dunlin keys rotate " + role + " --holder " + victim}
	if online[role] != "" {
		r.Steps = []string{"dunlin-fleet keys rotate " + role + ", on the server", "dunlin keys rotate online"}
	}
	r.Steps = append(r.Steps,
		fmt.Sprintf("dunlin keys sign, by %d of %d: here %s", len(r.Signers), len(cer.Joined), strings.Join(r.Signers, ", ")),
		"dunlin keys install; devices keep serving meanwhile and follow at their next refresh",
	)
	if theft && role == publish.KindRelease {
		r.Steps = append(r.Steps, "look through what was published: 'dunlin model list', and raise floors above what is not yours: 'dunlin keys floor'")
	}
	return r, nil
}

// instead begins the amendment that puts a new key in the place of one.
func (b *Begin) instead(cer *publish.Ceremony, role string) (*Amendment, error) {
	if online[role] == "" {
		return b.Rotate(cer.Joined[0].Name, role, "")
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	next := cer.Online
	switch role {
	case "snapshot":
		next.Snapshot = public
	case "timestamp":
		next.Timestamp = public
	case "director":
		next.Director = public
	}
	return b.Online(&next)
}

// copyOf makes a ceremony of the same shape with keys of its own, signed by all, in
// dir.
func copyOf(real *publish.Ceremony, dir string, now time.Time) (*play, error) {
	cer := &publish.Ceremony{Format: real.Format, Holders: real.Holders, Threshold: real.Threshold, Practice: real.Practice, Teams: real.Teams, Drafted: now.UTC().Truncate(time.Second)}
	p := &play{cer: cer, keys: map[string]*offline.Key{}}
	p.Begin = &Begin{Dir: dir, State: &State{}, Now: now, own: p.make}
	for _, k := range []*ed25519.PublicKey{&cer.Online.Snapshot, &cer.Online.Timestamp, &cer.Online.Director} {
		var err error
		if *k, _, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return nil, err
		}
	}
	for _, x := range real.Joined {
		h, err := publish.Holder{Name: x.Name}, error(nil)
		if h.Root, err = p.make(h.Where(dir, publish.KindRoot)); err != nil {
			return nil, err
		}
		if h.Release, err = p.make(h.Where(dir, publish.KindRelease)); err != nil {
			return nil, err
		}
		cer.Joined = append(cer.Joined, h)
	}
	list, err := cer.Drafts()
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		for i := range cer.Joined {
			if !d.May(cer.Joined[i].Name) {
				continue
			}
			if err := offline.SignPaper(d.Paper, p.keys[cer.Joined[i].Where(dir, d.Kind)]); err != nil {
				return nil, err
			}
		}
		b, err := d.Paper.ToBytes(true)
		if err != nil {
			return nil, err
		}
		p.State.put(d.File, b)
		if err := offline.ReplaceFile(filepath.Join(dir, d.File), b); err != nil {
			return nil, err
		}
	}
	return p, cer.Save(dir)
}

// thief says what one key of a kind allows alone, by the thresholds.
func thief(cer *publish.Ceremony, role string) (string, error) {
	if alone := online[role]; alone != "" {
		return alone, nil
	}
	if role == publish.KindRoot {
		if cer.Threshold == 1 {
			return "everything: one signature makes new roots", nil
		}
		return fmt.Sprintf("nothing: %d root keys make a new root", cer.Threshold), nil
	}
	var open, closed []string
	for _, r := range cer.Roles() {
		if r.Threshold == 1 {
			open = append(open, r.Name)
		} else {
			closed = append(closed, r.Name)
		}
	}
	text := "publish for " + strings.Join(open, ", ")
	if len(closed) > 0 {
		text += "; nothing for " + strings.Join(closed, ", ")
	}
	return text, nil
}

// follow plays a device that knows the old roots: it takes the new ones by their
// chain, and then refuses what the old key alone could sign.
func follow(a *Amendment) (follows, refused bool) {
	follows, refused = true, true
	gone, err := a.gone()
	if err != nil {
		return false, false
	}
	for _, file := range []string{publish.CatalogRootFile, publish.DirectorRootFile} {
		old, err := offline.Parse[metadata.RootType](file, a.Base.get(file))
		if err != nil {
			return false, false
		}
		text := a.Next.get(file)
		if text == nil {
			continue
		}
		next, err := offline.Parse[metadata.RootType](file, text)
		if err != nil || old.VerifyDelegate(metadata.ROOT, next) != nil || next.VerifyDelegate(metadata.ROOT, next) != nil || next.Signed.Version != old.Signed.Version+1 {
			follows = false
			continue
		}
		for id := range gone {
			for _, role := range next.Signed.Roles {
				refused = refused && !slices.Contains(role.KeyIDs, id)
			}
		}
	}
	return follows, refused
}

// gone are the ids of the keys that the amendment takes away.
func (a *Amendment) gone() (map[string]bool, error) {
	ids := func(c *publish.Ceremony) (map[string]bool, error) {
		out := map[string]bool{}
		keys := [][]byte{c.Online.Snapshot, c.Online.Timestamp, c.Online.Director}
		for _, h := range c.Joined {
			keys = append(keys, h.Root, h.Release)
		}
		for _, k := range keys {
			_, id, err := offline.TUFKey(k)
			if err != nil {
				return nil, err
			}
			out[id] = true
		}
		return out, nil
	}
	old, err := ids(&a.Old)
	if err != nil {
		return nil, err
	}
	is, err := ids(&a.New)
	maps.DeleteFunc(old, func(id string, _ bool) bool { return is[id] })
	return old, err
}

// Text is the result for people.
func (d *Drilled) Text() string {
	var out strings.Builder
	for _, x := range []struct {
		what string
		r    *Rehearse
	}{{"LOSS", &d.Loss}, {"THEFT", &d.Theft}} {
		fmt.Fprintf(&out, "%s of a %s key\n", x.what, d.Role)
		if x.what == "THEFT" {
			fmt.Fprintf(&out, "  the key alone allows: %s\n", x.r.Thief)
		}
		for i, s := range x.r.Steps {
			fmt.Fprintf(&out, "  %d. %s\n", i+1, s)
		}
		fmt.Fprintf(&out, "  rehearsed: %s; a device follows: %v; the old key is refused: %v\n", strings.Join(x.r.Files, ", "), x.r.Follows, x.r.Before)
	}
	return out.String()
}
