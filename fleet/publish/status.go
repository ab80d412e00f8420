package publish

import (
	"path/filepath"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet/offline"
)

// Signed is how far the signing of one file has come.
type Signed struct {
	File      string    `json:"file"`
	Threshold int       `json:"threshold"`
	By        []string  `json:"signed_by"` // holders
	Open      []string  `json:"could_sign"`
	Missing   int       `json:"missing"` // signatures until the threshold
	Expires   time.Time `json:"expires"`
}

// Days until the file expires, rounded down; negative when it has.
func (s *Signed) Days(now time.Time) int { return int(s.Expires.Sub(now).Hours() / 24) }

// Status tells of every file who has signed it.
func Status(dir string) (*Ceremony, []Signed, error) {
	c, err := OpenCeremony(dir)
	if err != nil {
		return nil, nil, err
	}
	papers, err := c.papers(dir)
	if err != nil {
		return nil, nil, err
	}
	list := make([]Signed, len(papers))
	for i, d := range papers {
		if list[i], err = c.signed(d); err != nil {
			return nil, nil, err
		}
	}
	if len(c.Editions) > 0 {
		list, err = c.amended(dir, list)
	}
	return c, list, err
}

// amended adds the roles of the channels as the folder has them, which is since the
// last amendment that signed them: what was published after it is the server's.
func (c *Ceremony) amended(dir string, list []Signed) ([]Signed, error) {
	for _, r := range c.Roles() {
		file := r.File()
		b, err := offline.ReadBounded(filepath.Join(dir, file), offline.MaxPaper)
		if err != nil {
			return nil, err
		}
		md, err := offline.Parse[metadata.TargetsType](file, b)
		if err != nil {
			return nil, err
		}
		s, err := c.signed(Draft{file, KindRelease, r.Threshold, md.Signed.Expires, md, r.Members})
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func (c *Ceremony) signed(d Draft) (Signed, error) {
	s := Signed{File: d.File, Threshold: d.Threshold, By: []string{}, Open: []string{}, Expires: d.Expires}
	for i := range c.Joined {
		if !d.May(c.Joined[i].Name) {
			continue
		}
		key, id, err := offline.TUFKey(c.Joined[i].Key(d.Kind))
		if err != nil {
			return s, err
		}
		if offline.SignedBy(d.Paper, key, id) {
			s.By = append(s.By, c.Joined[i].Name)
		} else {
			s.Open = append(s.Open, c.Joined[i].Name)
		}
	}
	s.Missing = max(0, d.Threshold-len(s.By))
	return s, nil
}
