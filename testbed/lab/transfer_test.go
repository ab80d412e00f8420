package lab_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/link"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/testbed/lab"
)

// blobSize is that of the models that are transferred here.
const blobSize = 32 << 20

// assigned is a device, connected through a proxy, that is to run a model of
// random bytes.
func assigned(t *testing.T, s *lab.Server, id string) (d *lab.Device, p *lab.Proxy, model []byte) {
	t.Helper()
	model = make([]byte, blobSize)
	rand.Read(model) // never fails
	b := catalogtest.Model(t, "model-"+id, "1.0.0", model)
	s.Publish(b)
	d, p = s.Enrol(id), lab.NewProxy(t, s.MQTT)
	d.Start(p.Addr())
	s.Assign(b, "class=lab-"+id)
	d.Refresh(1)
	return d, p, model
}

// whole downloads the model and wants it to be byte for byte what was published.
func whole(t *testing.T, d *lab.Device, model []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*lab.Patience)
	defer cancel()
	path, err := d.Trust.Download(ctx, link.Source{Link: d.Link}, bundle.DigestOf(model), int64(len(model)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(model) {
		t.Fatalf("%d bytes that are not the model: %v", len(got), err)
	}
}

// TestTransferIsCut cuts the connection while a model comes, at one place or at
// several: the rest comes over the next connections, and no more than 2 % of the
// model goes over the line twice, framing, handshakes and greetings included.
func TestTransferIsCut(t *testing.T) {
	s := lab.Start(t)
	s.Publish(catalogtest.Runtime(t, "arm64", "2.3.0", []byte("library")))
	for _, c := range []struct {
		id   string
		cuts []int64 // percent of the model
	}{
		{"never", nil}, {"early", []int64{3}}, {"middle", []int64{50}}, {"late", []int64{97}}, {"thrice", []int64{10, 50, 90}},
	} {
		t.Run(c.id, func(t *testing.T) {
			d, p, model := assigned(t, s, c.id)
			before, began := p.Down(), time.Now()
			opened, _ := p.Connections()
			var cuts []int64
			for _, percent := range c.cuts {
				cuts = append(cuts, percent*blobSize/100)
			}
			p.CutAt(cuts...)
			whole(t, d, model)
			again, _ := p.Connections()
			if again-opened != len(c.cuts) {
				t.Errorf("%d more connections after %d cuts", again-opened, len(c.cuts))
			}
			extra := p.Down() - before - blobSize
			t.Logf("%d cuts: %d KiB more than the model's %d KiB, %.2f %%, in %v", len(c.cuts), extra>>10, blobSize>>10, 100*float64(extra)/blobSize, time.Since(began).Round(time.Millisecond))
			if extra > blobSize/50 {
				t.Errorf("%d bytes went over the line twice", extra)
			}
		})
	}
}

// TestTransferGoesOnAfterARestart stops the device's program in the middle of a
// model and starts it again: it goes on with what is on its disk.
func TestTransferGoesOnAfterARestart(t *testing.T) {
	s := lab.Start(t)
	s.Publish(catalogtest.Runtime(t, "arm64", "2.3.0", []byte("library")))
	d, p, model := assigned(t, s, "meter-1")
	before := p.Down()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := d.Trust.Download(ctx, link.Source{Link: d.Link}, bundle.DigestOf(model), blobSize)
		ended <- err
	}()
	lab.Until(t, "half of the model", func() bool { return p.Down()-before > blobSize/2 })
	cancel()
	if err := <-ended; err == nil {
		t.Fatal("the model came whole before the program was stopped")
	}
	d.Stop()
	d.Start(p.Addr())
	half := p.Down()
	whole(t, d, model)
	extra := p.Down() - before - blobSize
	t.Logf("stopped at %d %%: %d KiB more than the model, %.2f %%", 100*(half-before)/blobSize, extra>>10, 100*float64(extra)/blobSize)
	if extra > blobSize/50 {
		t.Errorf("%d bytes went over the line twice", extra)
	}
}
