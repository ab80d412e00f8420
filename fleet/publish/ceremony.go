package publish

import (
	"cmp"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Names inside a ceremony's folder.
const (
	CeremonyFile   = "ceremony.json"
	PracticeFile   = "PRACTICE"
	TranscriptFile = "transcript.txt"
	KeysDir        = "keys"
)

const (
	maxHolders      = 16
	maxMachines     = 16
	maxCeremony     = 1 << 20 // bytes of ceremony.json
	ceremonyFormat  = 1
	defaultHolders  = 3
	defaultQuorum   = 2
	practiceWarning = "PRACTICE CEREMONY: one person alone can sign everything. Never install these keys for devices that matter.\n"
)

// Online are the public keys that the server signs with.
type Online struct {
	Snapshot  ed25519.PublicKey `json:"catalog_snapshot"`
	Timestamp ed25519.PublicKey `json:"catalog_timestamp"`
	Director  ed25519.PublicKey `json:"director"`
}

// Holder is a person who holds two offline keys.
type Holder struct {
	Name    string `json:"name"`
	Root    []byte `json:"root"`    // signs both roots; its form: Key.Public
	Release []byte `json:"release"` // signs the catalog's targets and the channels
	// Where a plug-in has the keys, as NAME://KEY; empty: in files of KeysDir.
	RootRef    string `json:"root_ref,omitempty"`
	ReleaseRef string `json:"release_ref,omitempty"`
	// Which key of theirs it is, from 1; 0 means 1.
	RootNo    int `json:"root_no,omitempty"`
	ReleaseNo int `json:"release_no,omitempty"`
}

// Edition says which version of a file it is, and from when its lifetime counts.
type Edition struct {
	Version int64     `json:"version"`
	Drafted time.Time `json:"drafted"`
}

// Machine is a key that signs without a person, for one channel that wants one
// signature only.
type Machine struct {
	Name    string `json:"name"`
	Channel string `json:"channel"`
	Key     []byte `json:"key"` // its form: Key.Public
	Ref     string `json:"ref,omitempty"`
}

// Ceremony is what ceremony.json says: who holds keys, and what the drafts are
// made from. It holds nothing secret.
type Ceremony struct {
	Format    int       `json:"format"`
	Holders   int       `json:"holders"`   // how many join
	Threshold int       `json:"threshold"` // how many of them must sign
	Practice  bool      `json:"practice,omitempty"`
	Online    Online    `json:"online"`
	Joined    []Holder  `json:"joined"`
	Machines  []Machine `json:"machines,omitempty"`
	Teams     []Team    `json:"teams,omitempty"`
	Drafted   time.Time `json:"drafted,omitzero"` // when the last holder joined; lifetimes count from here
	// Editions of files that were amended since.
	Editions map[string]Edition `json:"editions,omitempty"`
}

// Edition is that of a file.
func (c *Ceremony) Edition(file string) Edition {
	if e, ok := c.Editions[file]; ok {
		return e
	}
	return Edition{Version: 1, Drafted: c.Drafted}
}

// JoinConfig says who joins which ceremony. Holders, Threshold, Practice and
// Online matter to the first holder only; later ones must not contradict.
type JoinConfig struct {
	Dir, Holder        string
	Holders, Threshold int // 0: 3 and 2, or what the first holder said
	Practice           bool
	Online             func() (*Online, error)
	Passphrase         offline.Passphrase
	// RootKey and ReleaseKey are keys that a plug-in holds, as NAME://KEY; empty:
	// they are made here.
	RootKey, ReleaseKey string
}

var holderForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// ValidHolder tells whether a holder can have this name.
func ValidHolder(name string) bool { return holderForm.MatchString(name) }

// Join makes a holder's two keys and adds their public halves to the ceremony.
// When the last holder has joined, the unsigned drafts are written.
func Join(c JoinConfig, now time.Time) (*Ceremony, error) {
	if !holderForm.MatchString(c.Holder) {
		return nil, refuse("holder.malformed", "write it like 'alice': small letters, digits and dashes", "holder %q is not understood", c.Holder)
	}
	cer, err := LoadCeremony(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		cer, err = begin(c)
	}
	if err != nil {
		return nil, err
	}
	if err := cer.mayJoin(c); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(c.Dir, KeysDir), 0o700); err != nil {
		return nil, err
	}
	h := Holder{Name: c.Holder, RootRef: c.RootKey, ReleaseRef: c.ReleaseKey}
	if h.Root, err = offline.OwnKey(h.Where(c.Dir, KindRoot), c.Passphrase); err != nil {
		return nil, err
	}
	if h.Release, err = offline.OwnKey(h.Where(c.Dir, KindRelease), c.Passphrase); err != nil {
		return nil, err
	}
	cer.Joined = append(cer.Joined, h)
	if cer.complete() {
		cer.Drafted = now.UTC().Truncate(time.Second)
		if err := cer.writeDrafts(c.Dir); err != nil {
			return nil, err
		}
	}
	return cer, cer.Save(c.Dir)
}

// begin starts a ceremony for its first holder.
func begin(c JoinConfig) (*Ceremony, error) {
	cer := &Ceremony{Format: ceremonyFormat, Holders: cmp.Or(c.Holders, defaultHolders), Threshold: cmp.Or(c.Threshold, defaultQuorum), Practice: c.Practice}
	if c.Practice {
		cer.Holders, cer.Threshold = cmp.Or(c.Holders, 1), cmp.Or(c.Threshold, 1)
	}
	if err := cer.validate(); err != nil {
		return nil, err
	}
	online, err := c.Online()
	if err != nil {
		return nil, err
	}
	cer.Online = *online
	if err := online.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	if c.Practice {
		return cer, offline.ReplaceFile(filepath.Join(c.Dir, PracticeFile), []byte(practiceWarning))
	}
	return cer, nil
}

func (c *Ceremony) mayJoin(j JoinConfig) error {
	for _, h := range c.Joined {
		if h.Name == j.Holder {
			return refuse("holder.exists", "let the next holder run it with a --holder of their own", "%s has joined already", j.Holder)
		}
	}
	if c.complete() {
		return refuse("ceremony.complete", "go on with 'dunlin keys sign'", "every holder (%d) has joined", c.Holders)
	}
	if j.Holders != 0 && j.Holders != c.Holders || j.Threshold != 0 && j.Threshold != c.Threshold || j.Practice && !c.Practice {
		return refuse("ceremony.differs", "leave --holders, --threshold and --practice away, or use another --dir", "this ceremony was begun with %d of %d", c.Threshold, c.Holders)
	}
	return nil
}

func (c *Ceremony) validate() error {
	next := "pass --holders 3 --threshold 2, or --practice to try things out"
	switch {
	case c.Format != ceremonyFormat:
		return refuse("ceremony.malformed", "use the dunlin that began it", "%s has format %d, this program reads %d", CeremonyFile, c.Format, ceremonyFormat)
	case c.Practice && (c.Holders != 1 || c.Threshold != 1):
		return refuse("ceremony.threshold", "leave --holders and --threshold away", "a practice ceremony is held by one person")
	case !c.Practice && (c.Threshold < 2 || c.Threshold > c.Holders || c.Holders > maxHolders):
		return refuse("ceremony.threshold", next, "%d of %d holders: at least 2 must sign, at most %d can join", c.Threshold, c.Holders, maxHolders)
	case len(c.Machines) > maxMachines:
		return refuse("ceremony.machines", "end one of them", "%d machines have keys, at most %d can", len(c.Machines), maxMachines)
	case len(c.Joined) > c.Holders:
		return refuse("ceremony.malformed", next, "%s names more holders than it allows", CeremonyFile)
	}
	return c.validateTeams()
}

func (o *Online) validate() error {
	for name, k := range map[string]ed25519.PublicKey{"catalog_snapshot": o.Snapshot, "catalog_timestamp": o.Timestamp, "director": o.Director} {
		if len(k) != ed25519.PublicKeySize {
			return refuse("keys.online", "take what the server's /v1/keys/online says", "the online key %s has %d bytes, %d are wanted", name, len(k), ed25519.PublicKeySize)
		}
	}
	return nil
}

// Check refuses a ceremony that is not whole or that no dunlin makes.
func (c *Ceremony) Check() error {
	if !c.complete() {
		return refuse("ceremony.incomplete", "let the next holder run 'dunlin keys init'", "%d of %d holders have joined", len(c.Joined), c.Holders)
	}
	return errors.Join(c.validate(), c.Online.validate())
}

func (c *Ceremony) complete() bool { return len(c.Joined) == c.Holders }

// LoadCeremony reads a ceremony's state; an error that wraps fs.ErrNotExist when
// none was begun there.
func LoadCeremony(dir string) (*Ceremony, error) {
	b, err := offline.ReadBounded(filepath.Join(dir, CeremonyFile), maxCeremony)
	if err != nil {
		return nil, fmt.Errorf("read ceremony: %w", err)
	}
	c := &Ceremony{}
	if err := bundle.StrictJSON(b); err != nil {
		return nil, fmt.Errorf("read %s: %w", CeremonyFile, err)
	}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("read %s: %w", CeremonyFile, err)
	}
	return c, errors.Join(c.validate(), c.Online.validate())
}

// OpenCeremony is LoadCeremony for those who need the drafts.
func OpenCeremony(dir string) (*Ceremony, error) {
	c, err := LoadCeremony(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse("ceremony.unknown", "name the folder with --dir, or begin with 'dunlin keys init'", "there is no ceremony in %s", dir)
	}
	if err != nil {
		return nil, err
	}
	if !c.complete() {
		return nil, refuse("ceremony.incomplete", "let the next holder run 'dunlin keys init'", "%d of %d holders have joined", len(c.Joined), c.Holders)
	}
	return c, nil
}

// Save writes ceremony.json.
func (c *Ceremony) Save(dir string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return offline.ReplaceFile(filepath.Join(dir, CeremonyFile), append(b, '\n'))
}

// The two keys of a holder.
const (
	KindRoot    = "root"
	KindRelease = "release"
)

func keyPath(dir, holder, kind string) string {
	return filepath.Join(dir, KeysDir, holder+"-"+kind+".pem")
}

// Where are the files or the references of both keys of a holder.
func (c *Ceremony) Where(dir, holder string) (root, release string) {
	for i := range c.Joined {
		if h := &c.Joined[i]; h.Name == holder {
			return h.Where(dir, KindRoot), h.Where(dir, KindRelease)
		}
	}
	return "", ""
}

// Where is the file or the reference of a holder's key.
func (h *Holder) Where(dir, kind string) string {
	ref, no := h.ReleaseRef, h.ReleaseNo
	if kind == KindRoot {
		ref, no = h.RootRef, h.RootNo
	}
	path := keyPath(dir, h.Name, kind)
	if no > 1 {
		path = strings.TrimSuffix(path, ".pem") + fmt.Sprintf("-%d.pem", no)
	}
	return cmp.Or(ref, path)
}

func (h *Holder) Key(kind string) []byte {
	if kind == KindRoot {
		return h.Root
	}
	return h.Release
}
