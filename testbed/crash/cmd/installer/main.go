// Command installer brings one model to one release with the agent's own slots,
// state and queue, and nothing else of the agent: the smallest program that the
// tracer can kill at every step. It ends when the release is committed; started
// again after a kill it goes on.
//
//	installer DIR RELEASE
//
// DIR/blobs/RELEASE.FILE are the files of a release.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/agent/queue"
	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/agent/state"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: installer DIR RELEASE")
		os.Exit(2)
	}
	if err := install(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// journal is what the installer was about to do.
type journal struct {
	Release string `json:"release"`
	Step    string `json:"step"`
}

// device is everything that is on the disk.
type device struct {
	dir      string
	db       *state.DB
	journals *state.Bucket[journal]
	model    *slots.Slots
	queues   *queue.Set
}

func install(dir, release string) error {
	d := &device{dir: dir}
	var health state.Health
	var err error
	if d.db, health, err = state.Open(dir, state.Options{}); err != nil {
		return err
	}
	if !health.Whole() {
		return fmt.Errorf("state was damaged: %+v", health)
	}
	if d.journals, err = state.NewBucket[journal](d.db, "journal"); err != nil {
		return err
	}
	store, err := slots.Open(durable.OS{}, filepath.Join(dir, "slots"))
	if err != nil {
		return err
	}
	if d.model, err = store.Model("meter"); err != nil {
		return err
	}
	if d.queues, err = queue.OpenSet(durable.OS{}, filepath.Join(dir, "queue"), 64<<10); err != nil {
		return err
	}
	if err := d.walk(release); err != nil {
		return err
	}
	if err := d.queues.Close(); err != nil {
		return err
	}
	return d.db.Close()
}

// walk does the steps from the one that the journal names.
func (d *device) walk(release string) error {
	j, under, err := d.journals.Get("meter")
	if err != nil {
		return err
	}
	if !under || j.Release != release {
		j = journal{release, "place"}
	}
	steps := []struct {
		name string
		do   func(string) error
	}{{"place", d.place}, {"try", d.try}, {"commit", d.commit}, {"report", d.report}}
	begun := false
	for _, s := range steps {
		if begun = begun || s.name == j.Step; !begun {
			continue
		}
		if err := d.journals.Put("meter", journal{release, s.name}); err != nil {
			return err
		}
		if err := s.do(release); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return d.journals.Delete("meter")
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func pair(release string) slots.Pair {
	return slots.Pair{Bundle: digest([]byte(release)), Runtime: digest([]byte("runtime"))}
}

func (d *device) find(release string) (slots.State, slots.Place, error) {
	s, err := d.model.Look()
	return s, s.Find(pair(release)), err
}

func (d *device) place(release string) error {
	if _, at, err := d.find(release); err != nil || at != slots.None {
		return err
	}
	s, err := d.model.Stage()
	if err != nil {
		return err
	}
	for _, name := range []string{"model.tflite", "labels.txt"} {
		blob := filepath.Join(d.dir, "blobs", release+"."+name)
		b, err := durable.ReadFile(durable.OS{}, blob, 1<<20)
		if err != nil {
			return err
		}
		if err := s.Add(slots.File{Name: name, Digest: digest(b), Size: int64(len(b))}, blob); err != nil {
			return err
		}
	}
	_, err = s.Publish(pair(release), nil)
	return err
}

func (d *device) try(release string) error {
	s, at, err := d.find(release)
	if err != nil {
		return err
	}
	if s.Active != at {
		if err := d.model.Judge(at, slots.Judged{Verdict: slots.Trying}); err != nil {
			return err
		}
	}
	return d.model.Switch(at)
}

func (d *device) commit(release string) error {
	_, at, err := d.find(release)
	if err != nil {
		return err
	}
	return d.model.Judge(at, slots.Judged{Verdict: slots.Good})
}

func (d *device) report(release string) error {
	_, err := d.queues.Event.Append([]byte("installed " + release))
	return err
}
