package publish

import (
	"bytes"
	"fmt"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/fleet/offline"
)

// Sign adds a holder's signatures to every draft and returns the files that were
// changed. It signs only what follows from ceremony.json: a draft whose text was
// changed is refused, and so is a key that is not the one that joined.
func Sign(dir, holder string, pass offline.Passphrase) ([]string, error) {
	c, err := OpenCeremony(dir)
	if err != nil {
		return nil, err
	}
	keys, err := c.load(dir, holder, pass)
	if err != nil {
		return nil, err
	}
	papers, err := c.papers(dir)
	if err != nil {
		return nil, err
	}
	var changed []string
	for _, d := range papers {
		if !d.May(holder) {
			continue
		}
		k := keys[d.Kind]
		public, id, err := offline.TUFKey(k.Public)
		if err != nil {
			return nil, err
		}
		if offline.SignedBy(d.Paper, public, id) {
			continue
		}
		if err := offline.SignPaper(d.Paper, k); err != nil {
			return nil, fmt.Errorf("sign %s: %w", d.File, err)
		}
		b, err := d.Paper.ToBytes(true)
		if err != nil {
			return nil, err
		}
		if err := offline.ReplaceFile(filepath.Join(dir, d.File), b); err != nil {
			return nil, err
		}
		changed = append(changed, d.File)
	}
	return changed, nil
}

// load opens both keys of a holder.
func (c *Ceremony) load(dir, holder string, pass offline.Passphrase) (map[string]*offline.Key, error) {
	for i := range c.Joined {
		h := &c.Joined[i]
		if h.Name != holder {
			continue
		}
		keys := map[string]*offline.Key{}
		for _, kind := range []string{KindRoot, KindRelease} {
			k, err := offline.LoadKey(h.Where(dir, kind), pass)
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(k.Public, h.Key(kind)) {
				return nil, refuse("key.mismatch", "find out who changed "+CeremonyFile+" or the key; begin anew if in doubt", "%s is not the key with which %s joined", h.Where(dir, kind), holder)
			}
			keys[kind] = k
		}
		return keys, nil
	}
	return nil, refuse("holder.unknown", "see 'dunlin keys status'", "%s has not joined this ceremony", holder)
}

// papers reads the drafts with the signatures that they bear by now.
func (c *Ceremony) papers(dir string) ([]Draft, error) {
	list, err := c.Drafts()
	if err != nil {
		return nil, err
	}
	for i := range list {
		d := &list[i]
		b, err := offline.ReadBounded(filepath.Join(dir, d.File), offline.MaxPaper)
		if err != nil {
			return nil, fmt.Errorf("read draft: %w", err)
		}
		have, err := offline.ParseLike(d.Paper, d.File, b)
		if err != nil {
			return nil, err
		}
		same, err := offline.SameText(have, d.Paper)
		if err != nil {
			return nil, err
		}
		if !same {
			return nil, refuse("ceremony.changed", "find out who changed it; begin anew if in doubt", "%s does not say what %s gives", d.File, CeremonyFile)
		}
		d.Paper = have
	}
	return list, nil
}
