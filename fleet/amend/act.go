package amend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

// Warning and Urgent are how long before its expiry a file is to be signed anew.
const (
	Warning = 60 * 24 * time.Hour
	Urgent  = 14 * 24 * time.Hour
)

// State is what a server has.
type State struct {
	Papers
	RoleFloors map[string]int64
}

// Fetch asks the server for everything that people sign.
func Fetch(ctx context.Context, c *publish.Client) (*State, error) {
	b, err := c.Do(ctx, http.MethodGet, "/v1/catalog/metadata", nil)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Repo  string `json:"repo"`
			Role  string `json:"role"`
			Bytes []byte `json:"bytes"`
			Floor int64  `json:"floor"`
		} `json:"items"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	s := &State{RoleFloors: map[string]int64{}}
	for _, m := range list.Items {
		switch {
		case m.Role == metadata.ROOT && m.Repo == "director":
			s.DirectorRoot = m.Bytes
		case m.Role == metadata.ROOT:
			s.CatalogRoot = m.Bytes
		case m.Role == metadata.TARGETS:
			s.Targets = m.Bytes
		default:
			if _, ok := fleet.ChannelOf(m.Role); !ok {
				continue
			}
			s.put(m.Role+".json", m.Bytes)
			if m.Floor > 0 {
				s.RoleFloors[m.Role] = m.Floor
			}
		}
	}
	return s, nil
}

// Begin is what every act begins with.
type Begin struct {
	Dir        string // of the ceremony
	State      *State
	Passphrase offline.Passphrase
	Now        time.Time

	own func(where string) ([]byte, error) // makes a key; nil: as a file or in a plug-in
}

// ownKey makes the key of a place and returns its public half.
func (b *Begin) ownKey(where string) ([]byte, error) {
	if b.own != nil {
		return b.own(where)
	}
	return offline.OwnKey(where, b.Passphrase)
}

// act makes an amendment of what change makes of the ceremony; fresh names files
// that are signed anew whatever changes.
func (b *Begin) act(what string, fresh []string, change func(a *Amendment) error) (*Amendment, error) {
	path := filepath.Join(b.Dir, File)
	if _, err := os.Stat(path); err == nil {
		return nil, refuse("amendment.under_way", "finish it with 'dunlin keys sign' and 'keys install', or delete "+path, "an amendment is under way already")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	cer, err := publish.OpenCeremony(b.Dir)
	if err != nil {
		return nil, err
	}
	a := &Amendment{Format: format, Act: what, Made: b.Now.UTC().Truncate(time.Second), Old: *cer, New: *cer, Base: b.State.Papers, RoleFloors: b.State.RoleFloors}
	a.New.Joined, a.New.Machines, a.New.Editions = slices.Clone(cer.Joined), slices.Clone(cer.Machines), maps.Clone(cer.Editions)
	a.New.Teams = slices.Clone(cer.Teams)
	if err := errors.Join(a.trusted(b.Dir), a.based()); err != nil {
		return nil, err
	}
	if err := change(a); err != nil {
		return nil, err
	}
	if err := a.New.Check(); err != nil {
		return nil, err
	}
	if err := a.edit(fresh); err != nil {
		return nil, err
	}
	if len(a.papers) == 0 {
		return nil, refuse("amendment.nothing", "none needed; see 'dunlin keys status'", "nothing is to be changed")
	}
	return a, a.Write(path)
}

// edit gives the next edition to every file that changes, and to the fresh ones.
func (a *Amendment) edit(fresh []string) error {
	next := func(file string, version int64) {
		if a.New.Editions == nil {
			a.New.Editions = map[string]publish.Edition{}
		}
		a.New.Editions[file] = publish.Edition{Version: version, Drafted: a.Made}
	}
	was, err := drafts(&a.Old)
	if err != nil {
		return err
	}
	is, err := drafts(&a.New)
	if err != nil {
		return err
	}
	for _, file := range []string{publish.CatalogRootFile, publish.DirectorRootFile, publish.TargetsFile} {
		same, err := offline.SameText(was[file].Paper, is[file].Paper)
		if err != nil {
			return err
		}
		if !same || slices.Contains(fresh, file) {
			next(file, a.Old.Edition(file).Version+1)
		}
	}
	if is, err = drafts(&a.New); err != nil {
		return err
	}
	delegations := is[publish.TargetsFile].Paper.(*targetsFile)
	for _, r := range a.New.Roles() {
		md, c, err := a.base(&r)
		if err != nil {
			return err
		}
		// What is delegated is judged before the copies come in, which nobody has signed.
		again := delegations.VerifyDelegate(r.Name, md) != nil || slices.Contains(fresh, r.File()) || len(a.floorsOf(&r, delegations)) > 0
		takes, err := a.takes(&r, delegations, md, &c)
		if err != nil {
			return err
		}
		if again || takes {
			next(r.File(), max(md.Signed.Version, a.RoleFloors[r.Name])+1)
		}
	}
	want, err := a.derive()
	if err != nil {
		return err
	}
	for _, file := range files(&a.New) {
		if p := want[file]; p != nil {
			a.papers = append(a.papers, *p)
		}
	}
	return nil
}

func (a *Amendment) holder(name string) (*publish.Holder, error) {
	i := slices.IndexFunc(a.New.Joined, func(h publish.Holder) bool { return h.Name == name })
	if i < 0 {
		return nil, refuse("holder.unknown", "see 'dunlin keys status'", "%s holds no keys of this ceremony", name)
	}
	return &a.New.Joined[i], nil
}

// Rotate makes a new key of a kind, "root" or "release", for a holder in place of
// the one that they have; ref is a plug-in's key, empty: it is made here.
func (b *Begin) Rotate(holder, kind, ref string) (*Amendment, error) {
	return b.act(fmt.Sprintf("rotate the %s key of %s", kind, holder), nil, func(a *Amendment) error {
		h, err := a.holder(holder)
		if err != nil {
			return err
		}
		return renewKey(h, b, kind, ref)
	})
}

// following is the number of a holder's next key; 0 stands for the first one, -1 for
// none yet.
func following(no int) int {
	switch no {
	case -1:
		return 0
	case 0:
		return 2
	}
	return no + 1
}

// Online gives the server's online roles to the keys that it has made ready.
func (b *Begin) Online(next *publish.Online) (*Amendment, error) {
	return b.act("rotate the server's online keys", nil, func(a *Amendment) error {
		a.New.Online = *next
		return nil
	})
}

// NextOnline asks the server for the keys that it has made ready.
func NextOnline(ctx context.Context, c *publish.Client) (*publish.Online, error) {
	b, err := c.Do(ctx, http.MethodGet, "/v1/keys/online", nil)
	if err != nil {
		return nil, err
	}
	var have struct {
		Next *publish.Online `json:"next"`
	}
	if err := json.Unmarshal(b, &have); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	if have.Next == nil {
		return nil, refuse("keys.online", "run 'dunlin-fleet keys rotate' on the server first", "the server has made no next keys")
	}
	return have.Next, nil
}

// renewKey gives a holder the next key of a kind.
func renewKey(h *publish.Holder, b *Begin, kind, ref string) (err error) {
	switch kind {
	case publish.KindRoot:
		h.RootNo, h.RootRef = following(h.RootNo), ref
		h.Root, err = b.ownKey(h.Where(b.Dir, kind))
	case publish.KindRelease:
		h.ReleaseNo, h.ReleaseRef = following(h.ReleaseNo), ref
		h.Release, err = b.ownKey(h.Where(b.Dir, kind))
	default:
		err = refuse("keys.kind", "pass root or release", "a holder has no key of kind %q", kind)
	}
	return err
}

// Replace gives the place of a holder whose keys are lost to somebody, who may be
// the same person: both keys are made anew.
func (b *Begin) Replace(holder, with string) (*Amendment, error) {
	return b.act(fmt.Sprintf("replace the lost keys of %s, held by %s from now on", holder, with), nil, func(a *Amendment) error {
		h, err := a.holder(holder)
		if err != nil {
			return err
		}
		if with != holder {
			if _, err := a.holder(with); err == nil {
				return refuse("holder.exists", "name somebody who holds no keys yet", "%s holds keys already", with)
			}
			*h = publish.Holder{Name: with, RootNo: -1, ReleaseNo: -1} // their first keys
			if err := leaves(&a.New, holder, with); err != nil {
				return err
			}
		}
		if !publish.ValidHolder(with) {
			return refuse("holder.malformed", "write it like 'alice': small letters, digits and dashes", "holder %q is not understood", with)
		}
		return errors.Join(renewKey(h, b, publish.KindRoot, ""), renewKey(h, b, publish.KindRelease, ""))
	})
}

// Revoke takes the keys of a holder or of a machine away for good. The threshold
// stays, so others must still reach it.
func (b *Begin) Revoke(name string) (*Amendment, error) {
	return b.act("revoke the keys of "+name, nil, func(a *Amendment) error {
		machines := len(a.New.Machines)
		a.New.Machines = slices.DeleteFunc(a.New.Machines, func(m publish.Machine) bool { return m.Name == name })
		if len(a.New.Machines) < machines {
			return nil
		}
		if _, err := a.holder(name); err != nil {
			return err
		}
		a.New.Joined = slices.DeleteFunc(a.New.Joined, func(h publish.Holder) bool { return h.Name == name })
		a.New.Holders--
		if err := leaves(&a.New, name, ""); err != nil {
			return err
		}
		if a.New.Holders < a.New.Threshold {
			return refuse("ceremony.threshold", "replace the keys instead: 'dunlin keys replace --holder "+name+" --with NAME'", "%d holders would be left of the %d who must sign", a.New.Holders, a.New.Threshold)
		}
		return nil
	})
}

// Harden hands a practice fleet over to the holders of a whole ceremony in another
// folder, of which nothing was installed.
func (b *Begin) Harden(to string) (*Amendment, error) {
	return b.act("hand over from practice to "+to, nil, func(a *Amendment) error {
		if !a.Old.Practice {
			return refuse("keys.hard", "use 'dunlin keys rotate', 'replace' or 'revoke'", "this is no practice ceremony")
		}
		real, err := publish.OpenCeremony(to)
		if err != nil {
			return err
		}
		if real.Practice || len(real.Editions) > 0 {
			return refuse("keys.hard", "begin one with 'dunlin keys init --dir NEW --holder NAME'", "%s is a practice ceremony, or was installed before", to)
		}
		x, err := json.Marshal(a.Old.Online)
		y, err2 := json.Marshal(real.Online)
		if err != nil || err2 != nil || string(x) != string(y) {
			return refuse("keys.online", "begin the ceremony with this server's online keys", "%s was made for another server", to)
		}
		editions := a.New.Editions
		a.New = *real
		a.New.Drafted, a.New.Editions = a.Old.Drafted, editions
		return nil
	})
}

// Floor raises floors of models in a channel.
func (b *Begin) Floor(channel string, floors map[string]int64) (*Amendment, error) {
	if !fleet.ValidChannel(channel) {
		return nil, refuse("channel.unknown", "pass one of: "+strings.Join(fleet.Channels, ", "), "there is no channel %q", channel)
	}
	var list []string
	for _, m := range slices.Sorted(maps.Keys(floors)) {
		list = append(list, fmt.Sprintf("%s to %d", m, floors[m]))
	}
	return b.act(fmt.Sprintf("raise floors in %s: %s", channel, strings.Join(list, ", ")), nil, func(a *Amendment) error {
		a.Channel, a.Floors = channel, floors
		return nil
	})
}

// Renew signs anew what expires soon, or everything.
func (b *Begin) Renew(all bool) (*Amendment, error) {
	var due []string
	cer, err := publish.OpenCeremony(b.Dir)
	if err != nil {
		return nil, err
	}
	for _, file := range files(cer) {
		at, err := b.State.expires(file)
		if err != nil {
			return nil, err
		}
		if all || at.Sub(b.Now) < Warning {
			due = append(due, file)
		}
	}
	return b.act("sign anew: "+strings.Join(due, ", "), due, func(*Amendment) error { return nil })
}

// expires is when what the server has of a file expires.
func (p *Papers) expires(file string) (time.Time, error) {
	b := p.get(file)
	if b == nil {
		return time.Time{}, fleet.ErrCatalogEmpty
	}
	if file == publish.CatalogRootFile || file == publish.DirectorRootFile {
		md, err := offline.Parse[metadata.RootType](file, b)
		if err != nil {
			return time.Time{}, err
		}
		return md.Signed.Expires, nil
	}
	md, err := offline.Parse[metadata.TargetsType](file, b)
	if err != nil {
		return time.Time{}, err
	}
	return md.Signed.Expires, nil
}
