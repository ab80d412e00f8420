package usb

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatch puts sticks into a mount folder and takes them out: each of ours is
// found once, its context ends when it goes or changes, and others are passed over.
func TestWatch(t *testing.T) {
	mount := t.TempDir()
	ours, _ := stick(t)
	foreign, _ := stick(t)
	must(t, os.Rename(filepath.Join(foreign, deviceFile), filepath.Join(foreign, "dunlin/devices/other")))
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var found, gone []string
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			Watch(ctx, mount, who, func(ctx context.Context, path string) {
				mu.Lock()
				found = append(found, filepath.Base(path))
				mu.Unlock()
				<-ctx.Done()
				mu.Lock()
				gone = append(gone, filepath.Base(path))
				mu.Unlock()
			})
		}()
		want := func(about string, f, g int) {
			t.Helper()
			time.Sleep(3 * look) // of the bubble: both sides have come to rest
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(found) != f || len(gone) != g {
				t.Errorf("%s: found %v, gone %v; want %d and %d", about, found, gone, f, g)
			}
		}
		want("an empty folder", 0, 0)
		must(t, os.Rename(foreign, filepath.Join(mount, "foreign")))
		must(t, os.Mkdir(filepath.Join(mount, "holiday"), 0o755))
		must(t, os.Symlink(ours, filepath.Join(mount, "link")))
		want("nothing of ours", 0, 0)
		must(t, os.Rename(ours, filepath.Join(mount, "ours")))
		must(t, os.Remove(filepath.Join(mount, "link")))
		want("ours", 1, 0)
		must(t, os.Chtimes(filepath.Join(mount, "ours", deviceFile), time.Unix(1, 0), time.Unix(1, 0)))
		want("exported to again", 2, 1)
		must(t, os.RemoveAll(filepath.Join(mount, "ours")))
		want("pulled", 2, 2)
		must(t, os.RemoveAll(mount))
		want("no folder", 2, 2)
		cancel()
		<-ended
	})
}

// TestLooseContact has a stick come and go all the time: it is attended to a few
// times in an hour, and at once again when it was left alone.
func TestLooseContact(t *testing.T) {
	mount := t.TempDir()
	ours, _ := stick(t)
	must(t, os.Rename(ours, filepath.Join(mount, "ours")))
	synctest.Test(t, func(t *testing.T) {
		var found atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			Watch(ctx, mount, who, func(ctx context.Context, _ string) { found.Add(1); <-ctx.Done() })
		}()
		for n := range int64(time.Hour / look) {
			must(t, os.Chtimes(filepath.Join(mount, "ours", deviceFile), time.Unix(n, 0), time.Unix(n, 0)))
			time.Sleep(look)
		}
		often := found.Load()
		if often < 5 || often > 20 {
			t.Errorf("attended to %d times in an hour", often)
		}
		must(t, os.Rename(filepath.Join(mount, "ours"), filepath.Join(mount, "..", "away")))
		time.Sleep(3 * maxPause)
		must(t, os.Rename(filepath.Join(mount, "..", "away"), filepath.Join(mount, "ours")))
		time.Sleep(2 * look)
		if found.Load() != often+1 {
			t.Error("the next time it is not attended to at once")
		}
		cancel()
		<-ended
	})
}
