package lab_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/link"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/testbed/lab"
)

// taps keeps what a source brought, or brings what was kept.
type taps struct {
	trust.Source
	kept []trust.File
	play bool
}

func (s *taps) Refresh(ctx context.Context, h trust.Held) ([]trust.File, error) {
	if s.play {
		return s.kept, nil
	}
	var err error
	s.kept, err = s.Source.Refresh(ctx, h)
	return s.kept, err
}

// nowhere takes no bytes.
type nowhere struct{ n int }

func (w *nowhere) WriteAt(b []byte, _ int64) (int, error) { w.n += len(b); return len(b), nil }

var _ io.WriterAt = (*nowhere)(nil)

// TestOwnFilesOnly refreshes two devices over MQTT: each gets files that name it
// and not the other, a device that is handed the other's refuses them, and neither
// can read the other's model.
func TestOwnFilesOnly(t *testing.T) {
	s := lab.Start(t)
	s.Publish(catalogtest.Runtime(t, "arm64", "2.3.0", []byte("library")))
	names := []string{"meter-1", "meter-10"}
	devices, tapped, models := map[string]*lab.Device{}, map[string]*taps{}, map[string][]byte{}
	for _, id := range names {
		models[id] = []byte("the model of " + id)
		b := catalogtest.Model(t, "model-"+id, "1.0.0", models[id])
		s.Publish(b)
		d := s.Enrol(id)
		d.Start(s.MQTT)
		s.Assign(b, "class=lab-"+id)
		devices[id], tapped[id] = d, &taps{Source: link.Source{Link: d.Link}}
		lab.Until(t, "the wish", func() bool { w, err := s.DB.Wish(t.Context(), id); must(t, err); return w.Generation == 1 })
		if w, err := d.Trust.Refresh(t.Context(), tapped[id]); err != nil || w.Generation != 1 || len(w.Targets) != 2 {
			t.Fatalf("%s: %+v, %v", id, w, err)
		}
	}
	third := s.Enrol("meter-2")
	third.Start(s.MQTT)
	for n, id := range names {
		other := names[1-n]
		own := 0
		for _, f := range tapped[id].kept {
			if bytes.Contains(f.Bytes, fmt.Appendf(nil, `"device":%q`, other)) {
				t.Errorf("%s got the %s %s of %s", id, f.Repo, f.Role, other)
			}
			if bytes.Contains(f.Bytes, fmt.Appendf(nil, `"device":%q`, id)) {
				own++
			}
		}
		if own != 3 {
			t.Errorf("%s got %d files that name it", id, own)
		}
		var refusal *trust.Refusal
		if _, err := third.Trust.Refresh(t.Context(), &taps{kept: tapped[id].kept, play: true}); !errors.As(err, &refusal) || refusal.Code != trust.CodeWrongDevice {
			t.Errorf("a third was handed the files of %s: %v", id, err)
		}
		for _, x := range []struct {
			of   string
			want string
		}{{id, ""}, {other, "blob.not_assigned"}} {
			got, code := &nowhere{}, ""
			err := devices[id].Link.Pull(t.Context(), sha256.Sum256(models[x.of]), int64(len(models[x.of])), []link.Range{{Length: int64(len(models[x.of]))}}, got)
			var busy *link.Busy
			if errors.As(err, &busy) {
				code = busy.Code
			} else {
				must(t, err)
			}
			if code != x.want || (got.n > 0) != (code == "") {
				t.Errorf("%s reads the model of %s: %d bytes, %v", id, x.of, got.n, err)
			}
		}
	}
}
