package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/agent/link"
	"github.com/dunlin-edge/dunlin/agent/queue"
	"github.com/dunlin-edge/dunlin/agent/usb"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// offline is an agent whose link never comes up.
func offline(t *testing.T) *Agent {
	t.Helper()
	dir, fsys := t.TempDir(), durable.OS{}
	c := catalogtest.New(t, 1, 1, catalogtest.NewOnline(), time.Now()).Ceremony()
	must(t, trust.Install(fsys, filepath.Join(dir, "trust"), [][]byte{c.CatalogRoot}, [][]byte{c.DirectorRoot}))
	log := slog.New(slog.DiscardHandler)
	a := &Agent{c: Config{State: dir}, id: &identity.Identity{Device: "meter-1", Channel: "dev"}, log: log, route: newRoute(), clock: identity.OpenClock(fsys, dir, built)}
	var err error
	a.trust, err = trust.Open(trust.Config{FS: fsys, Dir: filepath.Join(dir, "trust"), Blobs: filepath.Join(dir, "blobs"), Device: "meter-1", Channel: "dev", Now: time.Now})
	must(t, err)
	a.queues, err = queue.OpenSet(fsys, filepath.Join(dir, "queue"), 1<<20)
	must(t, err)
	t.Cleanup(func() { a.queues.Close() })
	a.who, err = a.whoami(fsys)
	must(t, err)
	a.report = newReporter(a)
	a.link = link.New(link.Config{Device: "meter-1", Agent: a.report, Log: log})
	return a
}

// blobStick is a stick that holds bytes under the name of a digest.
func blobStick(t *testing.T, a *Agent, digest string, content []byte) *usb.Stick {
	t.Helper()
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		wire.LockboxMark: []byte(wire.LockboxFormat),
		filepath.Join(wire.LockboxDevices, wire.LockboxName(a.who.Fleet, a.who.Device)): {0},
		filepath.Join(wire.LockboxBlobs, strings.TrimPrefix(digest, "sha256:")):         content,
	} {
		path := filepath.Join(dir, wire.LockboxDir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, b, 0o644))
	}
	s, err := usb.Open(dir, a.who)
	must(t, err)
	return s
}

func good() error { return nil }

// codes of the events that were queued.
func codes(t *testing.T, a *Agent) (out []string) {
	t.Helper()
	bs, err := a.queues.Event.Waiting(1 << 20)
	must(t, err)
	for _, b := range bs {
		for _, r := range b.Records {
			var e wire.Event
			must(t, wire.Decode(r.Payload, &e))
			out = append(out, e.Code)
		}
	}
	return out
}

// TestWrongBlobOfAStick takes a blob from the next stick when the first has other
// bytes under its name, and says so.
func TestWrongBlobOfAStick(t *testing.T) {
	a := offline(t)
	content := bytes.Repeat([]byte("model"), 1000)
	digest := bundle.DigestOf(content)
	wrong := bytes.Clone(content)
	wrong[7] ^= 1
	must(t, a.route.take(blobStick(t, a, digest, wrong), good))
	must(t, a.route.take(blobStick(t, a, digest, content), good))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	p, err := repository{a}.Download(ctx, digest, int64(len(content)))
	must(t, err)
	if b, err := os.ReadFile(p); err != nil || !bytes.Equal(b, content) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if c := codes(t, a); len(c) == 0 || c[0] != "usb.blob" {
		t.Errorf("events %v", c)
	}
}

// TestStickWakesWhatWaitsForTheNetwork plugs a stick in while a download and a
// refresh wait for a network that never comes.
func TestStickWakesWhatWaitsForTheNetwork(t *testing.T) {
	a := offline(t)
	content := []byte("model")
	digest := bundle.DigestOf(content)
	done := make(chan error, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		_, err := repository{a}.Download(ctx, digest, int64(len(content)))
		done <- err
	}()
	go func() {
		_, err := repository{a}.Refresh(ctx)
		done <- err
	}()
	forged := errors.New("forged")
	if err := a.route.take(blobStick(t, a, digest, content), func() error { return forged }); !errors.Is(err, forged) {
		t.Fatal(err)
	}
	if len(done) != 0 {
		t.Error("a stick that is not believed woke somebody")
	}
	s := blobStick(t, a, digest, content)
	must(t, a.route.take(s, good))
	must(t, errors.Join(<-done, <-done))
	a.route.drop(s)
	cancel()
	if _, err := (repository{a}).Refresh(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a wish that was seen is fresh: %v", err)
	}
}

// TestShortAndGoneBlobs wants no endless circle over a stick that has nothing good.
func TestShortAndGoneBlobs(t *testing.T) {
	a := offline(t)
	content := []byte("model")
	digest := bundle.DigestOf(content)
	must(t, a.route.take(blobStick(t, a, digest, content[1:]), good))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := (repository{a}).Download(ctx, digest, int64(len(content))); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if c := codes(t, a); len(c) != 0 {
		t.Errorf("events %v for a blob that the stick does not have", c)
	}
}

// TestImportSaysWhatIsWrong gives every stick that is none an end with a code and a
// next step, and writes nothing onto it.
func TestImportSaysWhatIsWrong(t *testing.T) {
	a := offline(t)
	empty := t.TempDir()
	malformed := t.TempDir()
	for _, f := range []struct{ name, content string }{
		{wire.LockboxMark, wire.LockboxFormat}, {filepath.Join(wire.LockboxDevices, wire.LockboxName(a.who.Fleet, a.who.Device)), "x"},
		{filepath.Join(wire.LockboxChannels, wire.LockboxName(a.who.Fleet, a.who.Channel)), "x"},
	} {
		path := filepath.Join(malformed, wire.LockboxDir, f.name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(f.content), 0o644))
	}
	for path, want := range map[string]string{empty: usb.CodeNotOurs, malformed: usb.CodeMalformed, "/does/not/exist": usb.CodeNotOurs} {
		_, err := a.Import(t.Context(), path, time.Second)
		var coded *codedError
		if !errors.As(err, &coded) || coded.code != want || coded.next == "" {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
		if e, err := os.ReadDir(filepath.Join(path, wire.LockboxDir, wire.LockboxReceipts)); err == nil {
			t.Errorf("%s: written: %v", path, e)
		}
	}
	if c := codes(t, a); len(c) != 1 || c[0] != usb.CodeMalformed {
		t.Errorf("events %v", c)
	}
}
