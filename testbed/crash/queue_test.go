package crash_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/queue"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// queueStep is one act on a device's event queue.
type queueStep struct {
	append string // payload
	ack    int    // acknowledge the record of that many appends ago
	reopen bool
}

type name struct{ epoch, sequence uint64 }

// told is what the outside knows: what Append acknowledged, what the server
// acknowledged, and which name was seen for which payload.
type told struct {
	appended []wire.Record
	acked    int // of appended
}

var queueRuns = []struct {
	name  string
	bytes int64
	steps []queueStep
}{
	{"room enough", 1 << 20, steps("abcdefgh", 1000, 0)},
	{"acknowledged as it goes", 1 << 20, steps("abcdefghijkl", 1500, 3)},
	{"too small: drops", 6 << 10, steps("abcdefghij", 1500, 0)},
	{"small payloads", 1 << 20, steps("abcdefghijklmnop", 3, 5)},
}

// steps appends one payload per letter, acknowledges every n-th time, and opens
// the queue anew in the middle.
func steps(letters string, size, n int) []queueStep {
	var out []queueStep
	for i, l := range letters {
		out = append(out, queueStep{append: strings.Repeat(string(l), size)})
		if n > 0 && i%n == n-1 {
			out = append(out, queueStep{ack: 1})
		}
		if i == len(letters)/2 {
			out = append(out, queueStep{reopen: true})
		}
	}
	return out
}

func (r *told) after(f durable.FS, bytes int64) error {
	set, err := queue.OpenSet(f, "/queue", bytes)
	if err != nil {
		return err
	}
	seen := map[name]string{}
	for _, x := range r.appended {
		seen[name{x.Epoch, x.Sequence}] = string(x.Payload)
	}
	there := map[name]bool{}
	for {
		batch, err := set.Event.Next(100, 1<<20)
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			break
		}
		for _, x := range batch {
			n := name{x.Epoch, x.Sequence}
			if p, ok := seen[n]; ok && p != string(x.Payload) {
				return fmt.Errorf("%d/%d names two records", n.epoch%1000, n.sequence)
			}
			seen[n], there[n] = string(x.Payload), true
		}
		last := batch[len(batch)-1]
		if err := set.Event.Ack(last.Epoch, last.Sequence); err != nil {
			return err
		}
	}
	missing := uint64(0)
	for _, x := range r.appended[r.acked:] {
		if !there[name{x.Epoch, x.Sequence}] {
			missing++
		}
	}
	if dropped := set.Event.State().Dropped; missing > dropped {
		return fmt.Errorf("%d acknowledged records are gone, %d are said to be", missing, dropped)
	}
	seq, err := set.Event.Append([]byte("new"))
	if err != nil {
		return err
	}
	if _, ok := seen[name{set.Epoch(), seq}]; ok {
		return fmt.Errorf("%d/%d is used again", set.Epoch()%1000, seq)
	}
	return nil
}

// runQueue does the steps and tells after each what the outside knows.
func runQueue(f durable.FS, bytes int64, steps []queueStep, tell func(told)) error {
	set, err := queue.OpenSet(f, "/queue", bytes)
	if err != nil {
		return err
	}
	var now told
	tell(now)
	for _, s := range steps {
		switch {
		case s.reopen:
			if err := set.Close(); err != nil {
				return err
			}
			if set, err = queue.OpenSet(f, "/queue", bytes); err != nil {
				return err
			}
		case s.ack > 0:
			now.acked = len(now.appended) + 1 - s.ack
			x := now.appended[now.acked-1]
			tell(now) // the server has it, whatever becomes of the call
			if err := set.Event.Ack(x.Epoch, x.Sequence); err != nil {
				return err
			}
		default:
			seq, err := set.Event.Append([]byte(s.append))
			if err != nil {
				return err
			}
			now.appended = append(now.appended[:len(now.appended):len(now.appended)],
				wire.Record{Epoch: set.Epoch(), Sequence: seq, Payload: []byte(s.append)})
		}
		tell(now)
	}
	return nil
}

func exploreQueue(bytes int64, steps []queueStep, x crashfs.Explorer) (crashfs.Result, error) {
	knows := []told{{}}
	x.Check = func(after *crashfs.FS, done int) error { return knows[done].after(after, bytes) }
	return x.Run(crashfs.New(), func(f durable.FS, done func()) error {
		return runQueue(f, bytes, steps, func(now told) {
			knows = append(knows, now)
			done()
		})
	})
}

func TestQueueKeepsWhatItAcknowledged(t *testing.T) {
	for _, run := range queueRuns {
		t.Run(run.name, func(t *testing.T) {
			r, err := exploreQueue(run.bytes, run.steps, crashfs.Explorer{Limit: 32})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d steps, %d crash states, %d steps sampled", len(r.Labels), r.States, r.Sampled)
		})
	}
}

// harmlessInQueue are syncs that no crash can miss, with the reason.
var harmlessInQueue = map[string]string{
	"queue.segment.sync":  "the first append to a segment syncs its header, too",
	"queue.epoch.sync":    "a damaged epoch is one more random epoch",
	"queue.epoch.syncdir": "a lost epoch is drawn anew: nothing is numbered twice",
	"queue.drop.syncdir":  "a segment that comes back is sent again or was counted too much",
}

func TestEveryMissingSyncOfTheQueueIsFound(t *testing.T) {
	found := map[string]bool{}
	for _, run := range queueRuns {
		clean, err := exploreQueue(run.bytes, run.steps, crashfs.Explorer{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, label := range clean.Labels {
			if found[label] || !strings.HasSuffix(label, ".sync") && !strings.HasSuffix(label, ".syncdir") {
				continue
			}
			_, err := exploreQueue(run.bytes, run.steps, crashfs.Explorer{Limit: 32, Before: func(_ *crashfs.FS, s crashfs.Step) error {
				if s.Label == label {
					return crashfs.ErrSkip
				}
				return nil
			}})
			var v *crashfs.Violation
			found[label] = errors.As(err, &v)
		}
	}
	for label, ok := range found {
		if _, harmless := harmlessInQueue[label]; ok == harmless {
			t.Errorf("loss of %s: found %v, listed as harmless %v", label, ok, harmless)
		}
	}
	t.Logf("%d kinds of sync, %d harmless", len(found), len(harmlessInQueue))
}
