package stick

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/usb"
	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// code of an end, of a stick or of trust.
func code(err error) string {
	var r *trust.Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return usb.Code(err)
}

// TestEnds takes sticks in: each history has one end.
func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		stick      func(t *testing.T, s *server, d *device) string
		want       string
		generation int64 // that the device follows in the end
	}{
		"one stick": {func(t *testing.T, s *server, d *device) string {
			s.wish(d.id, "1.0.0")
			dir, _, _ := s.export(fleet.LockboxRequest{})
			return dir
		}, "", 1},
		"after three weeks": {func(t *testing.T, s *server, d *device) string {
			s.wish(d.id, "1.0.0")
			dir, _, _ := s.export(fleet.LockboxRequest{})
			d.now = s.now.Add(21 * day)
			return dir
		}, "", 1},
		"after its month": {func(t *testing.T, s *server, d *device) string {
			s.wish(d.id, "1.0.0")
			dir, _, _ := s.export(fleet.LockboxRequest{})
			d.now = s.now.Add(31 * day)
			return dir
		}, trust.CodeFreeze, 0},
		"after two months of three": {func(t *testing.T, s *server, d *device) string {
			s.wish(d.id, "1.0.0")
			dir, _, _ := s.export(fleet.LockboxRequest{Valid: 90 * day})
			d.now = s.now.Add(60 * day)
			return dir
		}, "", 1},
		"on a device that thinks it is 1970": {func(t *testing.T, s *server, d *device) string {
			s.wish(d.id, "1.0.0")
			dir, _, _ := s.export(fleet.LockboxRequest{})
			d.now = time.Unix(0, 0)
			return dir
		}, "", 1},
		"an empty wish": {func(t *testing.T, s *server, d *device) string {
			dir, _, _ := s.export(fleet.LockboxRequest{})
			return dir
		}, "", 0},
		"the same stick twice": {func(t *testing.T, s *server, d *device) string {
			s.wish(d.id, "1.0.0")
			dir, _, _ := s.export(fleet.LockboxRequest{})
			_, err := d.plug(dir)
			must(t, err)
			return dir
		}, "", 1},
		"two sticks, the newer last": {func(t *testing.T, s *server, d *device) string {
			s.wish(d.id, "1.0.0")
			first, _, _ := s.export(fleet.LockboxRequest{})
			s.wish(d.id, "1.1.0")
			second, _, _ := s.export(fleet.LockboxRequest{})
			_, err := d.plug(first)
			must(t, err)
			return second
		}, "", 2},
		"two sticks, the older last": {func(t *testing.T, s *server, d *device) string {
			s.wish(d.id, "1.0.0")
			first, _, _ := s.export(fleet.LockboxRequest{})
			second, _, _ := s.export(fleet.LockboxRequest{})
			_, err := d.plug(second)
			must(t, err)
			return first
		}, trust.CodeRollback, 1},
		"after a newer generation by network": {func(t *testing.T, s *server, d *device) string {
			s.wish(d.id, "1.0.0")
			dir, _, _ := s.export(fleet.LockboxRequest{})
			s.wish(d.id, "1.1.0")
			_, err := d.Refresh(t.Context(), online{d})
			must(t, err)
			return dir
		}, trust.CodeRollback, 2},
		"a newer one after the network": {func(t *testing.T, s *server, d *device) string {
			s.wish(d.id, "1.0.0")
			_, err := d.Refresh(t.Context(), online{d})
			must(t, err)
			s.wish(d.id, "1.1.0")
			dir, _, _ := s.export(fleet.LockboxRequest{})
			return dir
		}, "", 2},
		"made for another": {func(t *testing.T, s *server, d *device) string {
			s.enrol("meter-2")
			dir, x, _ := s.export(fleet.LockboxRequest{})
			for _, f := range x.Devices {
				if f.Of == d.id {
					must(t, os.Remove(filepath.Join(dir, wire.LockboxDir, wire.LockboxDevices, f.Name)))
				}
			}
			return dir
		}, usb.CodeNotOurs, 0},
		"another's file under its name": {func(t *testing.T, s *server, d *device) string {
			s.enrol("meter-2")
			s.wish("meter-2", "1.0.0")
			dir, x, _ := s.export(fleet.LockboxRequest{})
			names := map[string]string{}
			for _, f := range x.Devices {
				names[f.Of] = filepath.Join(dir, wire.LockboxDir, wire.LockboxDevices, f.Name)
			}
			must(t, os.Rename(names["meter-2"], names[d.id]))
			return dir
		}, trust.CodeWrongDevice, 0},
		"of another fleet with a device of this name": {func(t *testing.T, _ *server, d *device) string {
			other := newServer(t)
			other.enrol(d.id)
			other.wish(d.id, "1.0.0")
			dir, _, _ := other.export(fleet.LockboxRequest{})
			return dir
		}, usb.CodeNotOurs, 0},
		"of another fleet that says it is this one": {func(t *testing.T, s *server, d *device) string {
			other := newServer(t)
			other.enrol(d.id)
			other.wish(d.id, "1.0.0")
			dir, x, _ := other.export(fleet.LockboxRequest{})
			for folder, f := range map[string]fleet.LockboxFile{wire.LockboxDevices: x.Devices[0], wire.LockboxChannels: x.Channels[0]} {
				must(t, os.Rename(filepath.Join(dir, wire.LockboxDir, folder, f.Name), filepath.Join(dir, wire.LockboxDir, folder, wire.LockboxName(d.who().Fleet, f.Of))))
			}
			return dir
		}, trust.CodeSignature, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			d := s.enrol("meter-1")
			dir := c.stick(t, s, d)
			_, err := d.plug(dir)
			if code(err) != c.want || (err == nil) != (c.want == "") {
				t.Errorf("%v, want %q", err, c.want)
			}
			if g := d.Wish().Generation; g != c.generation {
				t.Errorf("generation %d, want %d", g, c.generation)
			}
			if _, err := d.reopen(durable.OS{}, d.dir); err != nil {
				t.Errorf("after a restart: %v", err)
			}
			d.now = s.now
			s.wish(d.id, "1.1.0")
			if w, err := d.Refresh(t.Context(), online{d}); err != nil || len(w.Targets) != 2 {
				t.Errorf("in the network afterwards: %+v, %v", w, err)
			}
		})
	}
}

// TestExportIsRefused names what can be wrong with what is asked for.
func TestExportIsRefused(t *testing.T) {
	s := newServer(t)
	s.enrol("meter-1")
	s.enrol("meter-2")
	must(t, s.db.Revoke(t.Context(), "meter-2", fleet.Audit{ID: "aud_1"}))
	for name, c := range map[string]struct {
		r    fleet.LockboxRequest
		want *fleet.Error
	}{
		"for a year":      {fleet.LockboxRequest{Valid: 365 * day}, fleet.ErrBadRequest},
		"for a second":    {fleet.LockboxRequest{Valid: time.Second}, fleet.ErrBadRequest},
		"for nobody":      {fleet.LockboxRequest{Selector: "site=nowhere"}, fleet.ErrNoDevices},
		"no selector":     {fleet.LockboxRequest{Selector: "a b c"}, fleet.ErrSelector},
		"another channel": {fleet.LockboxRequest{Channel: "production"}, fleet.ErrNoDevices},
	} {
		if _, err := s.lockboxes.Export(t.Context(), c.r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want.Code)
		}
	}
	_, x, _ := s.export(fleet.LockboxRequest{})
	if len(x.Devices) != 1 || x.Devices[0].Of != "meter-1" {
		t.Errorf("a revoked device is exported: %+v", x.Devices)
	}
	rows, err := s.db.Audit(t.Context(), "meter-1", "", 9)
	must(t, err)
	if !slices.ContainsFunc(rows, func(a fleet.Audit) bool { return a.Act == "usb.export" && a.Actor == "anna" }) {
		t.Errorf("audit %+v", rows)
	}
}

// TestOnlyWhatIsLacking exports what devices do not have by what they last
// reported, each blob once, and all of them when asked to.
func TestOnlyWhatIsLacking(t *testing.T) {
	s := newServer(t)
	a, b := s.enrol("meter-1"), s.enrol("meter-2")
	for _, d := range []*device{a, b} {
		s.wish(d.id, "1.0.0")
	}
	first, x, w := s.export(fleet.LockboxRequest{})
	if len(x.Blobs) != 6 || w.Blobs != 6 { // manifest, contract and file of the model and of the runtime
		t.Errorf("%d blobs, %d written, want 6", len(x.Blobs), w.Blobs)
	}
	for _, d := range []*device{a, b} {
		_, err := d.plug(first)
		must(t, err)
		r := d.runs("1.0.0", d.note().Nonce)
		_, err = s.in.Receipt(t.Context(), d.receipt(x.ID, &r))
		must(t, err)
	}
	if _, x, _ = s.export(fleet.LockboxRequest{}); len(x.Blobs) != 0 {
		t.Errorf("%d blobs for devices that have all", len(x.Blobs))
	}
	s.wish(a.id, "1.1.0")
	if _, x, _ = s.export(fleet.LockboxRequest{}); len(x.Blobs) != 5 { // not the runtime's library
		t.Errorf("%d blobs for a newer model, want 5", len(x.Blobs))
	}
	dir, x, _ := s.export(fleet.LockboxRequest{Full: true})
	if len(x.Blobs) != 9 {
		t.Errorf("%d blobs of everything, want 9", len(x.Blobs))
	}
	again, err := s.lockboxes.Export(t.Context(), fleet.LockboxRequest{Full: true})
	must(t, err)
	if w := s.write(dir, again); w.Blobs != 0 { // onto the stick that has them
		t.Errorf("%d blobs were written again", w.Blobs)
	}
}

// TestEveryFlippedByte changes a stick's metadata at many places: it is refused, or
// what is believed is the same.
func TestEveryFlippedByte(t *testing.T) {
	s := newServer(t)
	d := s.enrol("meter-1")
	s.wish(d.id, "1.0.0")
	dir, x, _ := s.export(fleet.LockboxRequest{})
	refused := 0
	random := rand.New(rand.NewPCG(3, 4))
	for folder, f := range map[string]fleet.LockboxFile{wire.LockboxDevices: x.Devices[0], wire.LockboxChannels: x.Channels[0]} {
		path := filepath.Join(dir, wire.LockboxDir, folder, f.Name)
		for range 60 {
			b := append([]byte{}, f.Bytes...)
			b[random.IntN(len(b))] ^= 1 << random.IntN(8)
			must(t, os.WriteFile(path, b, 0o644))
			fresh := *d
			fresh.dir = t.TempDir()
			fresh.open(durable.OS{}, fresh.dir)
			_, err := fresh.plug(dir)
			if err != nil {
				refused++
				if code(err) == "" {
					t.Fatalf("refused without a code: %v", err)
				}
				continue
			}
			if w := fresh.Wish(); w.Generation != 1 || len(w.Targets) != 2 || w.Targets[0].Digest != bundle.DigestOf(s.releases["1.0.0"].Raw) {
				t.Fatalf("believed: %+v", w)
			}
		}
		must(t, os.WriteFile(path, f.Bytes, 0o644))
	}
	t.Logf("%d of 120 changed sticks refused, the others say the same", refused)
}

// pulled is a stick that somebody pulls after so many calls.
type pulled struct {
	durable.FS
	left *int
}

func (p pulled) OpenFile(op, path string, how durable.How, perm fs.FileMode) (durable.File, error) {
	f, err := p.FS.OpenFile(op, path, how, perm)
	if err := p.gone(); err != nil {
		return nil, err
	}
	return pulledFile{f, p}, err
}

func (p pulled) Lstat(path string) (fs.FileInfo, error) {
	if err := p.gone(); err != nil {
		return nil, err
	}
	return p.FS.Lstat(path)
}

func (p pulled) gone() error {
	if *p.left--; *p.left < 0 {
		return syscall.EIO
	}
	return nil
}

type pulledFile struct {
	durable.File
	p pulled
}

func (f pulledFile) Read(b []byte) (int, error) {
	if err := f.p.gone(); err != nil {
		return 0, err
	}
	return f.File.Read(b)
}

func (f pulledFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.p.gone(); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, off)
}

// take does everything that a device does with a stick until its files are here.
func take(c *trust.Client, s *usb.Stick) error {
	w, err := c.RefreshLockbox(context.Background(), s)
	if err != nil {
		return err
	}
	for _, t := range w.Targets {
		if _, err := c.Download(context.Background(), s, t.Digest, t.Length); err != nil {
			return err
		}
	}
	return nil
}

// TestPulledAtAnyMoment pulls the stick after every call: the end has a code, and
// plugged in again everything is whole.
func TestPulledAtAnyMoment(t *testing.T) {
	s := newServer(t)
	d := s.enrol("meter-1")
	s.wish(d.id, "1.1.0")
	dir, _, _ := s.export(fleet.LockboxRequest{})
	moments := 0
	for n := 0; ; n++ {
		left := n
		fresh := *d
		fresh.dir = t.TempDir()
		fresh.open(durable.OS{}, fresh.dir)
		stick, err := usb.OpenIn(pulled{durable.OS{}, &left}, filepath.Join(dir, wire.LockboxDir), d.who())
		if err == nil {
			err = take(fresh.Client, stick)
		}
		if err == nil {
			break
		}
		moments++
		if c := usb.Code(err); c != usb.CodeGone && c != usb.CodeNotOurs {
			t.Fatalf("pulled after %d calls: %v", n, err)
		}
		whole, err := fresh.plug(dir)
		must(t, err)
		must(t, take(fresh.Client, whole))
	}
	t.Logf("pulled at %d moments", moments)
}

// TestCrashesInImport cuts the power of the device after every step of an import:
// it believes what it did before or what the stick says, and the next import makes
// it whole.
func TestCrashesInImport(t *testing.T) {
	s := newServer(t)
	d := s.enrol("meter-1")
	s.wish(d.id, "1.0.0")
	first, _, _ := s.export(fleet.LockboxRequest{})
	s.wish(d.id, "1.1.0")
	second, _, _ := s.export(fleet.LockboxRequest{})
	f := crashfs.New()
	d.open(f, "/")
	_, err := d.plug(first)
	must(t, err)
	f.Settle()
	stick, err := usb.Open(second, d.who())
	must(t, err)
	check := func(after *crashfs.FS, done int) error {
		c, err := d.reopen(after, "/")
		if err != nil {
			return err
		}
		if g := c.Wish().Generation; done > 0 && g != 2 {
			return fmt.Errorf("generation %d after the import", g)
		}
		if err := take(c, stick); err != nil {
			return fmt.Errorf("the next import: %w", err)
		}
		for _, x := range c.Wish().Targets {
			p, ok := c.Have(x.Digest)
			if b, err := durable.ReadFile(after, p, 1<<20); !ok || err != nil || bundle.DigestOf(b) != x.Digest {
				return fmt.Errorf("blob %s is not whole: %w", x.Path, err)
			}
		}
		return nil
	}
	r, err := (&crashfs.Explorer{Limit: 16, Check: check}).Run(f, func(_ durable.FS, done func()) error {
		err := take(d.Client, stick)
		done()
		return err
	})
	must(t, err)
	t.Logf("%d steps, %d crash states", len(r.Labels), r.States)
}

// TestVersionsAreShared wants the network to go on above a lockbox, and to hand out
// nothing of its long life.
func TestVersionsAreShared(t *testing.T) {
	s := newServer(t)
	d := s.enrol("meter-1")
	s.wish(d.id, "1.0.0")
	_, _, _ = s.export(fleet.LockboxRequest{})
	w, err := s.db.Wish(t.Context(), d.id)
	must(t, err)
	if w.Version != 2 || w.Generation != 1 {
		t.Errorf("version %d, generation %d after an export", w.Version, w.Generation)
	}
	rows, err := s.director.Newer(t.Context(), d.id, director.Held{Root: 1})
	must(t, err)
	for _, r := range rows {
		if r.Version != 1 {
			t.Errorf("%s of version %d is handed out in the network", r.Role, r.Version)
		}
	}
	s.wish(d.id, "1.1.0")
	if w, err = s.db.Wish(t.Context(), d.id); err != nil || w.Version != 3 || w.Generation != 2 {
		t.Errorf("%+v, %v", w, err)
	}
}

// BenchmarkExport signs a lockbox for 1,000 devices.
func BenchmarkExport(b *testing.B) {
	s := newServer(b)
	for n := range 1000 {
		id := fmt.Sprintf("meter-%d", n)
		s.enrol(id)
		s.wish(id, "1.0.0")
	}
	for b.Loop() {
		x, err := s.lockboxes.Export(b.Context(), fleet.LockboxRequest{By: "anna"})
		must(b, err)
		total := 0
		for _, f := range append(x.Devices, x.Channels...) {
			total += len(f.Bytes)
		}
		b.ReportMetric(float64(total)/float64(len(x.Devices)), "B/device")
	}
}
