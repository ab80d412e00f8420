package slots

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Verdict is what was judged about a pair in a place.
type Verdict string

// Verdicts, as reports carry them.
const (
	Unknown Verdict = "unknown"
	Trying  Verdict = "trying"
	Good    Verdict = "good"
	Bad     Verdict = "bad"
)

// Judged is a verdict with its circumstances.
type Judged struct {
	Verdict Verdict `json:"verdict"`
	Code    string  `json:"code,omitempty"`   // why bad: "prove.golden", …
	Reason  string  `json:"reason,omitempty"` // a sentence for people
	Attempt int64   `json:"attempt,omitempty"`
	Proven  bool    `json:"proven,omitempty"` // passed prove on this device
}

type storedVerdict struct {
	Format int `json:"format"`
	Pair
	Judged
}

// maxVerdict bounds the file; reasons come from workers and may be long.
const (
	maxVerdict = 16 << 10
	maxReason  = 2 << 10
)

func (m *Slots) verdictPath(p Place) string {
	return filepath.Join(m.dir, "verdict-"+string(p)+".json")
}

// Judge stores a verdict about the pair in a place.
func (m *Slots) Judge(p Place, j Judged) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.complete(p)
	if err != nil {
		return fmt.Errorf("judge %s: %w", m.name, err)
	}
	j.Code, j.Reason = j.Code[:min(len(j.Code), 128)], j.Reason[:min(len(j.Reason), maxReason)]
	b, err := json.Marshal(storedVerdict{format, r.Pair, j})
	if err != nil {
		return fmt.Errorf("judge %s: %w", m.name, err)
	}
	if _, err := decodeVerdict(b); err != nil {
		return fmt.Errorf("judge %s: %w", m.name, err)
	}
	return durable.WriteFile(m.fsys, "slots.verdict", m.verdictPath(p), b, 0o644)
}

// complete returns the slot at a place or ErrIncomplete.
func (m *Slots) complete(p Place) (*Slot, error) {
	if !p.valid() {
		return nil, ErrIncomplete
	}
	s, err := m.slot(p)
	if err != nil {
		return nil, err
	}
	if s.Content != Complete {
		return nil, fmt.Errorf("place %s: %w", p, ErrIncomplete)
	}
	return &s, nil
}

func decodeVerdict(b []byte) (*storedVerdict, error) {
	var s storedVerdict
	if err := decode(b, &s); err != nil || s.Format != format {
		return nil, fmt.Errorf("verdict of format %d: %w", s.Format, ErrRecord)
	}
	switch s.Verdict {
	case Unknown, Trying, Good, Bad:
		return &s, nil
	}
	return nil, fmt.Errorf("verdict %q: %w", s.Verdict, ErrRecord)
}

// readVerdict returns what was judged about a pair. A verdict on another pair, or
// a damaged one, is no verdict: unknown is never good.
func (m *Slots) readVerdict(p Place, pair Pair) (Judged, error) {
	none := Judged{Verdict: Unknown}
	b, err := durable.ReadFile(m.fsys, m.verdictPath(p), maxVerdict)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, fmt.Errorf("read verdict of %s: %w", m.name, err)
	}
	s, err := decodeVerdict(b)
	if err != nil || s.Pair != pair {
		return none, nil
	}
	return s.Judged, nil
}
