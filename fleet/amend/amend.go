// Package amend changes who may sign for a fleet after its ceremony: keys that are
// rotated, lost or stolen, floors that rise, metadata that is signed anew before it
// expires.
//
// An amendment is one file. It holds what the server had, the ceremony as it will
// be, and the next version of every file that follows from it. It travels from
// holder to holder; each verifies it up to the roots in their own folder, sees what
// it changes, and signs. It holds nothing secret. Where its files have their
// thresholds, of the old keys and of the new, the server takes it in, and devices
// follow the chain of roots.
package amend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/publish"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// File is an amendment's name in the folder of a ceremony while it is under way;
// HistoryDir keeps those that the server has taken in, by number.
const (
	File       = "amendment.json"
	HistoryDir = "history"
)

const (
	format  = 1
	maxFile = 64 << 20 // bytes of an amendment: every paper twice, in base64
)

// Papers are files that people sign, as bytes; those that are not part of something
// are nil.
type Papers struct {
	CatalogRoot  []byte            `json:"catalog_root,omitempty"`
	DirectorRoot []byte            `json:"director_root,omitempty"`
	Targets      []byte            `json:"targets,omitempty"`
	Roles        map[string][]byte `json:"roles,omitempty"` // by name
}

// get and put reach a paper by the name of its file.
func (p *Papers) get(file string) []byte {
	switch file {
	case publish.CatalogRootFile:
		return p.CatalogRoot
	case publish.DirectorRootFile:
		return p.DirectorRoot
	case publish.TargetsFile:
		return p.Targets
	}
	return p.Roles[strings.TrimSuffix(file, ".json")]
}

func (p *Papers) put(file string, b []byte) {
	switch file {
	case publish.CatalogRootFile:
		p.CatalogRoot = b
	case publish.DirectorRootFile:
		p.DirectorRoot = b
	case publish.TargetsFile:
		p.Targets = b
	default:
		if p.Roles == nil {
			p.Roles = map[string][]byte{}
		}
		p.Roles[strings.TrimSuffix(file, ".json")] = b
	}
}

// Amendment is a change of a ceremony while it waits for signatures, or afterwards.
type Amendment struct {
	Format int              `json:"format"`
	Act    string           `json:"act"` // what was asked for, for people
	Made   time.Time        `json:"made"`
	Old    publish.Ceremony `json:"old"`
	New    publish.Ceremony `json:"new"`
	Floors map[string]int64 `json:"floors,omitempty"` // of Channel, that rise
	// Channel that floors rise in.
	Channel string `json:"channel,omitempty"`
	Base    Papers `json:"base"` // what the server had
	Next    Papers `json:"next"` // what it shall have, with the signatures so far
	// RoleFloors are what versions of roles must be above on this server.
	RoleFloors map[string]int64 `json:"role_floors,omitempty"`

	papers []paper
}

// paper is one file of an amendment with those who have to sign it.
type paper struct {
	file    string
	paper   offline.Paper
	quorums []quorum
	expires time.Time
}

// quorum is a threshold of keys.
type quorum struct {
	whose     string // "old" or "new"
	kind      string
	threshold int
	of        *publish.Ceremony
	members   []string // of the holders; nil: all
}

// holders are those who may sign.
func (q *quorum) holders() []*publish.Holder {
	var list []*publish.Holder
	for i := range q.of.Joined {
		if h := &q.of.Joined[i]; q.members == nil || slices.Contains(q.members, h.Name) {
			list = append(list, h)
		}
	}
	return list
}

func refuse(code, next, text string, args ...any) error {
	return &fleet.Error{Code: code, Message: fmt.Sprintf(text, args...), Next: next}
}

// suspect refuses an amendment that is not what its words say.
func suspect(text string, args ...any) error {
	return refuse("amendment.suspect", "do not sign; ask who made it", "the amendment is not as it should be: %s", fmt.Sprintf(text, args...))
}

// Read reads an amendment of the ceremony in dir and verifies that it follows from
// what it says, and that what it says begins with the roots that dir trusts.
func Read(path, dir string) (*Amendment, error) {
	b, err := offline.ReadBounded(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse("amendment.unknown", "begin one with 'dunlin keys rotate', 'replace', 'revoke', 'floor' or 'renew'", "there is no amendment in %s", path)
	}
	if err != nil {
		return nil, err
	}
	a, err := parse(b)
	if err != nil {
		return nil, err
	}
	own, err := publish.OpenCeremony(dir)
	if err != nil {
		return nil, err
	}
	joins, err := a.joinedBy(own, dir)
	if err != nil {
		return nil, err
	}
	if joins {
		return a, a.verify()
	}
	// A folder whose update was cut off knows the new ceremony already.
	if !equal(own, &a.Old) && !equal(own, &a.New) {
		return nil, refuse("amendment.other", "take ceremony.json and both roots from the folder of who installed the last amendment, or ask who made this one", "the amendment begins with another ceremony than the one in %s", dir)
	}
	if err := a.trusted(dir); err != nil {
		return nil, err
	}
	return a, a.verify()
}

// joinedBy tells whether dir is that of people whom a practice fleet is handed over
// to: their own ceremony was never signed, so there are no roots yet that it trusts.
// Whoever has roots is told nothing by others about what came before.
func (a *Amendment) joinedBy(own *publish.Ceremony, dir string) (bool, error) {
	if !a.Old.Practice || own.Practice || len(own.Editions) > 0 || !sameHolders(own, &a.New) {
		return false, nil
	}
	_, list, err := publish.Status(dir)
	if err != nil {
		return false, err
	}
	for _, s := range list {
		if len(s.By) > 0 {
			return false, nil
		}
	}
	return true, nil
}

// sameHolders compares whose keys two ceremonies name.
func sameHolders(a, b *publish.Ceremony) bool {
	x, y := *a, *b
	x.Drafted, x.Editions, y.Drafted, y.Editions = time.Time{}, nil, time.Time{}, nil
	return equal(&x, &y)
}

func parse(b []byte) (*Amendment, error) {
	wrong := func(why any) error {
		return refuse("amendment.malformed", "take the file as it was made", "the amendment is not understood: %v", why)
	}
	if err := bundle.StrictJSON(b); err != nil {
		return nil, wrong(err)
	}
	a := &Amendment{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(a); err != nil {
		return nil, wrong(err)
	}
	if a.Format != format {
		return nil, wrong(fmt.Sprintf("format %d, this program reads %d", a.Format, format))
	}
	for _, c := range []*publish.Ceremony{&a.Old, &a.New} {
		if err := c.Check(); err != nil {
			return nil, wrong(err)
		}
	}
	return a, nil
}

func equal(a, b *publish.Ceremony) bool {
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

// verify derives every paper again and compares.
func (a *Amendment) verify() error {
	if err := a.based(); err != nil {
		return err
	}
	want, err := a.derive()
	if err != nil {
		return err
	}
	for file, p := range want {
		if e := a.New.Edition(file); !e.Drafted.Equal(a.Made) {
			return suspect("%s counts its life from %s, not from when it was made", p.file, e.Drafted.Format(time.DateOnly))
		}
	}
	roles := a.New.Roles()
	for _, name := range slices.Sorted(maps.Keys(a.Next.Roles)) {
		if !slices.ContainsFunc(roles, func(r publish.Role) bool { return r.Name == name }) {
			return suspect("there is no channel or team %q", name)
		}
	}
	if err := a.floorsChange(want); err != nil {
		return err
	}
	a.papers = nil
	for _, file := range files(&a.New) {
		b, p := a.Next.get(file), want[file]
		if (b == nil) != (p == nil) {
			return suspect("%s is changed, or not, other than what it says", file)
		}
		if p == nil {
			continue
		}
		have, err := offline.ParseLike(p.paper, file, b)
		if err != nil {
			return err
		}
		same, err := offline.SameText(have, p.paper)
		if err != nil {
			return err
		}
		if !same {
			return suspect("%s does not say what follows from the rest", file)
		}
		p.paper = have
		a.papers = append(a.papers, *p)
	}
	return nil
}

// trusted compares the base with the roots in the folder: the same, or what their
// keys vouch for.
func (a *Amendment) trusted(dir string) error {
	for _, file := range []string{publish.CatalogRootFile, publish.DirectorRootFile} {
		own, err := offline.ReadBounded(filepath.Join(dir, file), maxFile)
		if err != nil {
			return fmt.Errorf("read the trusted root: %w", err)
		}
		same, err := sameRoot(own, a.Base.get(file))
		if err != nil {
			return err
		}
		// A folder that was being brought up to date trusts the next one already.
		if !same && !bytes.Equal(own, a.Next.get(file)) {
			return suspect("it begins with another %s than the one in %s", file, dir)
		}
	}
	return nil
}

// based verifies what the amendment begins with: targets by the root, roles by the
// targets, all of it what the old ceremony says.
func (a *Amendment) based() error {
	was, err := drafts(&a.Old)
	if err != nil {
		return err
	}
	for _, file := range []string{publish.CatalogRootFile, publish.DirectorRootFile, publish.TargetsFile} {
		have, err := offline.ParseLike(was[file].Paper, file, a.Base.get(file))
		if err != nil {
			return err
		}
		if same, err := offline.SameText(have, was[file].Paper); err != nil || !same {
			return errors.Join(err, suspect("the %s that it begins with is not the old ceremony's", file))
		}
	}
	for _, file := range []string{publish.CatalogRootFile, publish.DirectorRootFile} {
		root, err := offline.Parse[metadata.RootType](file, a.Base.get(file))
		if err != nil {
			return err
		}
		if err := root.VerifyDelegate(metadata.ROOT, root); err != nil {
			return suspect("the %s that it begins with: %v", file, err)
		}
	}
	root, err := offline.Parse[metadata.RootType](publish.CatalogRootFile, a.Base.CatalogRoot)
	if err != nil {
		return err
	}
	targets, err := offline.Parse[metadata.TargetsType](publish.TargetsFile, a.Base.Targets)
	if err != nil {
		return err
	}
	if err := root.VerifyDelegate(metadata.TARGETS, targets); err != nil {
		return suspect("the targets that it begins with: %v", err)
	}
	for ch, b := range a.Base.Roles {
		if !a.had(ch) {
			continue // of a team that ended: nothing is taken from it
		}
		md, err := offline.Parse[metadata.TargetsType]("role "+ch, b)
		if err != nil {
			return err
		}
		if err := targets.VerifyDelegate(ch, md); err != nil {
			return suspect("role %s that it begins with: %v", ch, err)
		}
	}
	return nil
}

// sameRoot compares what two roots say; their files may be laid out otherwise.
func sameRoot(x, y []byte) (bool, error) {
	a, err := offline.Parse[metadata.RootType]("the trusted root", x)
	if err != nil {
		return false, err
	}
	b, err := offline.Parse[metadata.RootType]("the server's root", y)
	if err != nil {
		return false, err
	}
	if err := b.VerifyDelegate(metadata.ROOT, b); err != nil {
		return false, suspect("the root that it begins with: %v", err)
	}
	return offline.SameText(a, b)
}

// files are all that people sign, roots first.
func files(c *publish.Ceremony) []string {
	list := []string{publish.CatalogRootFile, publish.DirectorRootFile, publish.TargetsFile}
	for _, r := range c.Roles() {
		list = append(list, r.File())
	}
	return list
}

// derive makes every paper that follows from the rest, without signatures.
func (a *Amendment) derive() (map[string]*paper, error) {
	was, err := drafts(&a.Old)
	if err != nil {
		return nil, err
	}
	is, err := drafts(&a.New)
	if err != nil {
		return nil, err
	}
	out := map[string]*paper{}
	for _, file := range []string{publish.CatalogRootFile, publish.DirectorRootFile, publish.TargetsFile} {
		same, err := offline.SameText(was[file].Paper, is[file].Paper)
		if err != nil {
			return nil, err
		}
		if same {
			continue
		}
		if from, to := a.Old.Edition(file).Version, a.New.Edition(file).Version; to != from+1 {
			return nil, suspect("%s goes from version %d to %d", file, from, to)
		}
		p := &paper{file: file, paper: is[file].Paper, expires: is[file].Expires, quorums: []quorum{{"new", is[file].Kind, is[file].Threshold, &a.New, nil}}}
		if is[file].Kind == publish.KindRoot {
			p.quorums = append([]quorum{{"old", publish.KindRoot, was[file].Threshold, &a.Old, nil}}, p.quorums...)
		}
		out[file] = p
	}
	delegations := is[publish.TargetsFile].Paper.(*targetsFile)
	for _, r := range a.New.Roles() {
		p, err := a.role(&r, delegations)
		if err != nil {
			return nil, err
		}
		if p != nil {
			out[p.file] = p
		}
	}
	return out, nil
}

func drafts(c *publish.Ceremony) (map[string]publish.Draft, error) {
	list, err := c.Drafts()
	out := map[string]publish.Draft{}
	for _, d := range list {
		out[d.File] = d
	}
	return out, err
}

// Write writes the amendment with its signatures.
func (a *Amendment) Write(path string) error {
	for _, p := range a.papers {
		b, err := p.paper.ToBytes(true)
		if err != nil {
			return err
		}
		a.Next.put(p.file, b)
	}
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return offline.ReplaceFile(path, append(b, '\n'))
}
