package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// installBody is what POST /v1/catalog/roots takes.
type installBody struct {
	CatalogRoot  []byte            `json:"catalog_root"`
	DirectorRoot []byte            `json:"director_root"`
	Targets      []byte            `json:"targets"`
	Roles        map[string][]byte `json:"roles"` // by name
}

// Install brings a ceremony whose every file has reached its threshold to the
// server, and writes the transcript.
func (c *Client) Install(ctx context.Context, dir string, now time.Time) error {
	cer, status, err := Status(dir)
	if err != nil {
		return err
	}
	for _, s := range status {
		if s.Missing > 0 {
			return refuse("ceremony.threshold", "let one of them run 'dunlin keys sign': "+strings.Join(s.Open, ", "), "%s: %d of %d signatures are missing", s.File, s.Missing, s.Threshold)
		}
	}
	files := map[string][]byte{}
	for _, s := range status {
		if files[s.File], err = offline.ReadBounded(filepath.Join(dir, s.File), offline.MaxPaper); err != nil {
			return err
		}
	}
	req := installBody{CatalogRoot: files[CatalogRootFile], DirectorRoot: files[DirectorRootFile], Targets: files[TargetsFile], Roles: map[string][]byte{}}
	for _, r := range cer.Roles() {
		req.Roles[r.Name] = files[r.File()]
	}
	b, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if _, err := c.do(ctx, http.MethodPost, "/v1/catalog/roots", &body{bytes.NewReader(b), int64(len(b)), "application/json"}); err != nil {
		return err
	}
	text, err := cer.transcript(status, files, c.base, now)
	if err != nil {
		return err
	}
	return offline.ReplaceFile(filepath.Join(dir, TranscriptFile), text)
}

// transcript says what was done so that somebody who was not there can check it
// with sha256sum and any TUF tool.
func (c *Ceremony) transcript(status []Signed, files map[string][]byte, server string, now time.Time) ([]byte, error) {
	var out bytes.Buffer
	if c.Practice {
		out.WriteString(practiceWarning + "\n")
	}
	fmt.Fprintf(&out, "Key ceremony of a Dunlin fleet\n\ndrafted    %s\ninstalled  %s\nserver     %s\nthreshold  %d of %d holders\n\n",
		c.Drafted.Format(time.RFC3339), now.UTC().Format(time.RFC3339), server, c.Threshold, c.Holders)
	w := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "HOLDER\tKEY\tTUF KEY ID\n")
	for i := range c.Joined {
		for _, kind := range []string{KindRoot, KindRelease} {
			_, id, err := offline.TUFKey(c.Joined[i].Key(kind))
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", c.Joined[i].Name, kind, id)
		}
	}
	for i := range c.Machines {
		m := &c.Machines[i]
		_, id, err := offline.TUFKey(m.Key)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(w, "machine %s\t%s only\t%s\n", m.Name, m.Channel, id)
	}
	for i := range c.Teams {
		t := &c.Teams[i]
		fmt.Fprintf(w, "team %s\t%s of %s\t%d of %s\n", t.Name, strings.Join(t.Models, ", "), t.Channel, t.Threshold, strings.Join(t.Members, ", "))
	}
	for _, k := range []struct {
		name string
		key  []byte
	}{{"catalog snapshot", c.Online.Snapshot}, {"catalog timestamp", c.Online.Timestamp}, {"director", c.Online.Director}} {
		_, id, err := offline.TUFKey(k.key)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(w, "server\t%s\t%s\n", k.name, id)
	}
	fmt.Fprintf(w, "\nFILE\tBYTES\tSHA-256\tEXPIRES\tTHRESHOLD\tSIGNED BY\n")
	for _, s := range status {
		b := files[s.File]
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%s\n", s.File, len(b), strings.TrimPrefix(bundle.DigestOf(b), "sha256:"), s.Expires.Format(time.RFC3339), s.Threshold, strings.Join(s.By, ", "))
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	fmt.Fprintf(&out, "\nTo check: the files beside this one have these SHA-256 sums, 'dunlin keys status --dir .' finds the same\nsignatures, and the enrolment tokens of this server carry the sums of %s and %s.\n", CatalogRootFile, DirectorRootFile)
	return out.Bytes(), nil
}
