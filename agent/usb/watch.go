package usb

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// look is how often the mount folder is looked at.
const look = 2 * time.Second

// maxMounts is how many folders below the mount folder are looked at.
const maxMounts = 32

// Watch looks into a mount folder, and into the folders in it, until ctx ends. For
// each lockbox that holds something for the device it calls found once, in a
// goroutine of its own whose context ends when the lockbox is taken away or holds
// something else. Sticks that are not ours are passed over in silence. One that comes
// and goes in one place, by a loose contact, is attended to less and less often.
func Watch(ctx context.Context, mount string, who Who, found func(ctx context.Context, path string)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(look)
	defer tick.Stop()
	type visit struct {
		mark   string
		cancel context.CancelFunc
	}
	here, pace := map[string]visit{}, pacer{}
	for {
		now := lockboxes(mount, who)
		for path, v := range here {
			if now[path] != v.mark {
				v.cancel()
				delete(here, path)
			}
		}
		for path, mark := range now {
			if _, known := here[path]; known || !pace.may(path, time.Now()) {
				continue
			}
			vctx, cancel := context.WithCancel(ctx)
			here[path] = visit{mark, cancel}
			wg.Go(func() { found(vctx, path) })
		}
		select {
		case <-ctx.Done():
			for _, v := range here {
				v.cancel()
			}
			return
		case <-tick.C:
		}
	}
}

// maxPause is the longest pause between two visits in one place.
const maxPause = 10 * time.Minute

// pacer says when a place may be visited again: after pauses that double, unless it
// was left alone for twice the last one.
type pacer map[string]pause

type pause struct {
	began time.Time
	least time.Duration // until the next visit
}

func (p pacer) may(path string, now time.Time) bool {
	maps.DeleteFunc(p, func(_ string, last pause) bool { return now.Sub(last.began) > 2*last.least })
	last, known := p[path]
	switch {
	case !known:
		p[path] = pause{now, look}
	case now.Sub(last.began) < last.least:
		return false
	default:
		p[path] = pause{now, min(2*last.least, maxPause)}
	}
	return true
}

// lockboxes lists the folders with a lockbox for the device, each with a mark that
// changes when the lockbox does.
func lockboxes(mount string, who Who) map[string]string {
	candidates := []string{mount}
	if d, err := os.Open(mount); err == nil {
		entries, _ := d.ReadDir(maxMounts) // what can be read of it
		d.Close()
		for _, e := range entries {
			if e.IsDir() {
				candidates = append(candidates, filepath.Join(mount, e.Name()))
			}
		}
	}
	out := map[string]string{}
	for _, path := range candidates {
		s, err := Open(path, who)
		if err != nil {
			if Code(err) == CodeFormat {
				out[path] = CodeFormat
			}
			continue
		}
		if st, err := s.fsys.Lstat(s.device()); err == nil {
			out[path] = fmt.Sprint(st.ModTime().UnixNano(), st.Size())
		}
	}
	return out
}
