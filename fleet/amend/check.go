package amend

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/publish"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Checked is what a check of a ceremony's folder found; there is none when anything
// did not hold.
type Checked struct {
	Practice bool         `json:"practice"`
	Holders  []Keys       `json:"holders"`
	Acts     []CheckedAct `json:"amendments"`
	Files    []FileSum    `json:"files"`
}

// Keys are the TUF key ids of a holder.
type Keys struct {
	Holder  string `json:"holder"`
	Root    string `json:"root"`
	Release string `json:"release"`
}

// CheckedAct is one amendment of the history.
type CheckedAct struct {
	Act  string    `json:"act"`
	Made time.Time `json:"made"`
	// Changes follow from the files; Act is only what somebody wrote.
	Changes []string `json:"changes"`
	Files   []Signed `json:"files"`
}

// FileSum is one of the newest files.
type FileSum struct {
	File    string    `json:"file"`
	Version int64     `json:"version"`
	SHA256  string    `json:"sha256"`
	Expires time.Time `json:"expires"`
}

// Check verifies the folder of a ceremony by itself: the first roots are signed as
// they say, each amendment follows from the one before and has its thresholds, and
// the files in the folder are those that the last one ends with. Releases, which are
// published between amendments, are not part of it.
func Check(dir string) (*Checked, error) {
	cer, err := publish.OpenCeremony(dir)
	if err != nil {
		return nil, err
	}
	r := &Checked{Practice: cer.Practice, Holders: []Keys{}, Acts: []CheckedAct{}}
	var last *Amendment
	for n := 1; ; n++ {
		name := filepath.Join(HistoryDir, strconv.Itoa(n)+".json")
		b, err := offline.ReadBounded(filepath.Join(dir, name), maxFile)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, err
		}
		a, err := parse(b)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(a.follows(last), a.verify(), a.enough()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list, err := a.Status()
		if err != nil {
			return nil, err
		}
		changes, err := a.Changes()
		if err != nil {
			return nil, err
		}
		r.Acts = append(r.Acts, CheckedAct{a.Act, a.Made, changes, list})
		last = a
	}
	if last == nil && len(cer.Editions) > 0 {
		return nil, suspect("the history is gone")
	}
	if last != nil && !equal(&last.New, cer) {
		return nil, suspect("%s is not what the history ends with", publish.CeremonyFile)
	}
	return r, r.newest(dir, cer)
}

// follows wants an amendment to begin where the one before it ended.
func (a *Amendment) follows(last *Amendment) error {
	if last == nil {
		if len(a.Old.Editions) > 0 {
			return suspect("it begins after others that the history does not hold")
		}
		return nil
	}
	if !equal(&last.New, &a.Old) {
		return suspect("it does not begin with the ceremony that the amendment before it made")
	}
	for _, file := range []string{publish.CatalogRootFile, publish.DirectorRootFile, publish.TargetsFile} {
		if b := last.Next.get(file); b != nil && !bytes.Equal(b, a.Base.get(file)) {
			return suspect("its %s is not the one that the amendment before it made", file)
		}
	}
	return nil
}

// newest verifies the files that the folder has now.
func (r *Checked) newest(dir string, cer *publish.Ceremony) error {
	is, err := drafts(cer)
	if err != nil {
		return err
	}
	for _, h := range cer.Joined {
		_, root, err := offline.TUFKey(h.Root)
		if err != nil {
			return err
		}
		_, release, err := offline.TUFKey(h.Release)
		if err != nil {
			return err
		}
		r.Holders = append(r.Holders, Keys{h.Name, root, release})
	}
	for _, file := range []string{publish.CatalogRootFile, publish.DirectorRootFile, publish.TargetsFile} {
		b, err := offline.ReadBounded(filepath.Join(dir, file), maxFile)
		if err != nil {
			return err
		}
		d := is[file]
		have, err := offline.ParseLike(d.Paper, file, b)
		if err != nil {
			return err
		}
		if same, err := offline.SameText(have, d.Paper); err != nil || !same {
			return errors.Join(err, suspect("%s does not say what %s gives", file, publish.CeremonyFile))
		}
		signed := 0
		for i := range cer.Joined {
			key, id, err := offline.TUFKey(cer.Joined[i].Key(d.Kind))
			if err != nil {
				return err
			}
			if offline.SignedBy(have, key, id) {
				signed++
			}
		}
		if signed < d.Threshold {
			return suspect("%s has %d of %d signatures", file, signed, d.Threshold)
		}
		r.Files = append(r.Files, FileSum{file, cer.Edition(file).Version, strings.TrimPrefix(bundle.DigestOf(b), "sha256:"), d.Expires})
	}
	return nil
}

// Text is the transcript, for people.
func (r *Checked) Text() string {
	var out strings.Builder
	if r.Practice {
		out.WriteString("PRACTICE: one person alone can sign everything\n")
	}
	w := tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "HOLDER\tROOT KEY\tRELEASE KEY")
	for _, h := range r.Holders {
		fmt.Fprintf(w, "%s\t%s\t%s\n", h.Holder, h.Root, h.Release)
	}
	fmt.Fprintln(w, "\nFILE\tVERSION\tEXPIRES\tSHA-256")
	for _, f := range r.Files {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", f.File, f.Version, f.Expires.Format(time.DateOnly), f.SHA256)
	}
	for i, a := range r.Acts {
		fmt.Fprintf(w, "\n%d. %s, %s\n", i+1, a.Act, a.Made.Format(time.RFC3339))
		for _, c := range a.Changes {
			fmt.Fprintf(w, "   %s\n", c)
		}
		for _, s := range a.Files {
			fmt.Fprintf(w, "   %s\tby %s keys\t%d of %d: %s\n", s.File, s.Keys, len(s.By), s.Threshold, strings.Join(s.By, ", "))
		}
	}
	w.Flush()
	out.WriteString("\neverything follows from the first roots, and every threshold was reached\n")
	return out.String()
}
