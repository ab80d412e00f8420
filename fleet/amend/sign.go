package amend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

// clockSlack is how far the clocks of holders' machines may be apart.
const clockSlack = 24 * time.Hour

// Signed is how far one threshold of one file has come.
type Signed struct {
	File      string    `json:"file"`
	Keys      string    `json:"keys"` // "old": those that had the say so far; "new"
	Threshold int       `json:"threshold"`
	By        []string  `json:"signed_by"`
	Open      []string  `json:"could_sign"`
	Missing   int       `json:"missing"`
	Expires   time.Time `json:"expires"`
}

// Status tells of every file who has signed it and who could.
func (a *Amendment) Status() ([]Signed, error) {
	var list []Signed
	for _, p := range a.papers {
		for _, q := range p.quorums {
			s := Signed{File: p.file, Keys: q.whose, Threshold: q.threshold, By: []string{}, Open: []string{}, Expires: p.expires}
			for _, h := range q.holders() {
				key, id, err := offline.TUFKey(h.Key(q.kind))
				if err != nil {
					return nil, err
				}
				if offline.SignedBy(p.paper, key, id) {
					s.By = append(s.By, h.Name)
				} else {
					s.Open = append(s.Open, h.Name)
				}
			}
			s.Missing = max(0, q.threshold-len(s.By))
			list = append(list, s)
		}
	}
	return list, nil
}

// Sign adds a holder's signatures to every file, with the keys that they had and
// those that they get, as far as they are in dir; it returns the files that were
// changed.
func (a *Amendment) Sign(dir, holder string, pass offline.Passphrase, now time.Time) ([]string, error) {
	if a.Made.After(now.Add(clockSlack)) {
		return nil, suspect("it was made on %s, which has not come yet; if it has, set this machine's clock", a.Made.Format(time.DateOnly))
	}
	return a.sign(dir, holder, func(where string) (*offline.Key, error) { return offline.LoadKey(where, pass) })
}

func (a *Amendment) sign(dir, holder string, open func(where string) (*offline.Key, error)) ([]string, error) {
	keys := map[string]*offline.Key{}
	load := func(where string, want []byte) (*offline.Key, error) {
		if k := keys[where]; k != nil {
			return k, nil
		}
		k, err := open(where)
		if err != nil {
			return nil, err
		}
		if string(k.Public) != string(want) {
			return nil, refuse("key.mismatch", "find out who changed the key or the amendment", "%s is not the key that %s has in this ceremony", where, holder)
		}
		keys[where] = k
		return k, nil
	}
	var changed []string
	known, lost := false, error(nil)
	for _, p := range a.papers {
		for _, q := range p.quorums {
			for _, h := range q.holders() {
				if h.Name != holder {
					continue
				}
				known = true
				key, id, err := offline.TUFKey(h.Key(q.kind))
				if err != nil {
					return nil, err
				}
				if offline.SignedBy(p.paper, key, id) {
					continue
				}
				k, err := load(h.Where(dir, q.kind), h.Key(q.kind))
				if coded := (*fleet.Error)(nil); errors.As(err, &coded) && coded.Code == "key.unknown" {
					lost = err // a key that is lost signs nothing; others do
					continue
				}
				if err == nil {
					err = offline.SignPaper(p.paper, k)
				}
				if err != nil {
					return nil, fmt.Errorf("sign %s: %w", p.file, err)
				}
				if len(changed) == 0 || changed[len(changed)-1] != p.file {
					changed = append(changed, p.file)
				}
			}
		}
	}
	switch {
	case !known:
		return nil, refuse("holder.unknown", "see 'dunlin keys status'", "%s has nothing to sign here", holder)
	case len(changed) == 0 && lost != nil:
		return nil, lost
	}
	return changed, nil
}

// enough refuses an amendment of which a threshold is not reached.
func (a *Amendment) enough() error {
	list, err := a.Status()
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.Missing > 0 {
			return refuse("amendment.threshold", "let them run 'dunlin keys sign': "+strings.Join(s.Open, ", "), "%s: %d of %d signatures by %s keys are missing", s.File, s.Missing, s.Threshold, s.Keys)
		}
	}
	return nil
}

// Install brings an amendment to the server and then the folder up to date. Run
// again after it was cut off, it goes on.
func Install(ctx context.Context, c *publish.Client, dir string) (*Amendment, error) {
	path := filepath.Join(dir, File)
	a, err := Read(path, dir)
	if err != nil {
		return nil, err
	}
	if err := a.enough(); err != nil {
		return nil, err
	}
	for _, p := range a.papers {
		b, err := p.paper.ToBytes(true)
		if err != nil {
			return nil, err
		}
		a.Next.put(p.file, b)
	}
	b, err := json.Marshal(a.Next)
	if err != nil {
		return nil, err
	}
	_, err = c.Do(ctx, http.MethodPost, "/v1/catalog/amendments", b)
	if coded := (*fleet.Error)(nil); errors.As(err, &coded) && coded.Code == fleet.ErrCatalogStale.Code {
		// Cut off behind the server's answer, and somebody has published since.
		state, fetchErr := Fetch(ctx, c)
		if fetchErr != nil {
			return nil, fetchErr
		}
		if there, thereErr := a.there(state); thereErr != nil {
			return nil, thereErr
		} else if there {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	return a, a.settle(dir)
}

// there tells whether a server has everything of the amendment, or what was
// published on top of it.
func (a *Amendment) there(state *State) (bool, error) {
	for _, p := range a.papers {
		want, have := a.Next.get(p.file), state.get(p.file)
		if bytes.Equal(want, have) {
			continue
		}
		if p.quorums[0].kind == publish.KindRoot || p.file == publish.TargetsFile {
			return false, nil // nobody but an amendment changes these
		}
		ours, err := offline.Parse[metadata.TargetsType](p.file, want)
		if err != nil {
			return false, err
		}
		theirs, err := offline.Parse[metadata.TargetsType](p.file, have)
		if err != nil {
			return false, err
		}
		mine, err := customOf(ours)
		if err != nil {
			return false, err
		}
		its, err := customOf(theirs)
		if err != nil || theirs.Signed.Version <= ours.Signed.Version {
			return false, err
		}
		for model, floor := range mine.Floors {
			if its.Floors[model] < floor {
				return false, nil
			}
		}
	}
	return true, nil
}

// settle makes the folder hold what the server has now: the files, then the
// ceremony, and the amendment in the history last.
func (a *Amendment) settle(dir string) error {
	number, err := a.number(dir)
	if err != nil {
		return err
	}
	if err := a.Write(filepath.Join(dir, HistoryDir, strconv.Itoa(number)+".json")); err != nil {
		return err
	}
	for _, file := range files(&a.New) {
		if b := a.Next.get(file); b != nil {
			if err := offline.ReplaceFile(filepath.Join(dir, file), b); err != nil {
				return err
			}
		}
	}
	if err := a.New.Save(dir); err != nil {
		return err
	}
	if a.Old.Practice && !a.New.Practice {
		if err := os.Remove(filepath.Join(dir, publish.PracticeFile)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return os.Remove(filepath.Join(dir, File))
}

// number is its place in the history: the next one, or the one that it has.
func (a *Amendment) number(dir string) (int, error) {
	for n := 1; ; n++ {
		b, err := offline.ReadBounded(filepath.Join(dir, HistoryDir, strconv.Itoa(n)+".json"), maxFile)
		if errors.Is(err, fs.ErrNotExist) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		if have, err := parse(b); err == nil && equal(&have.Old, &a.Old) && equal(&have.New, &a.New) {
			return n, nil
		}
	}
}
