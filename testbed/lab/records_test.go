package lab_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
	"github.com/dunlin-edge/dunlin/testbed/lab"
)

// stored lists the sequences in the server's database, with repeats.
func stored(t *testing.T, s *lab.Server, device string) map[wire.Kind][]uint64 {
	t.Helper()
	const all = 100_000
	out := map[wire.Kind][]uint64{}
	rs, err := s.DB.Reports(t.Context(), device, all)
	must(t, err)
	for _, r := range rs {
		out[wire.KindReport] = append(out[wire.KindReport], r.Sequence)
	}
	ss, err := s.DB.Samples(t.Context(), device, 0, all)
	must(t, err)
	for _, r := range ss {
		out[wire.KindSample] = append(out[wire.KindSample], r.Sequence)
	}
	es, err := s.DB.Events(t.Context(), device, "", all)
	must(t, err)
	for _, r := range es {
		out[wire.KindEvent] = append(out[wire.KindEvent], r.Sequence)
	}
	for _, seqs := range out {
		slices.Sort(seqs)
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantStored wants 1 to n of each kind, each once.
func wantStored(t *testing.T, s *lab.Server, device string, n uint64, without ...uint64) {
	t.Helper()
	var want []uint64
	for seq := uint64(1); seq <= n; seq++ {
		if !slices.Contains(without, seq) {
			want = append(want, seq)
		}
	}
	got := stored(t, s, device)
	for _, k := range []wire.Kind{wire.KindReport, wire.KindSample, wire.KindEvent} {
		if diff := cmp.Diff(want, got[k]); diff != "" {
			t.Errorf("%s: %s", k, diff)
		}
	}
}

// acked tells whether the server has committed n of each kind.
func acked(t *testing.T, s *lab.Server, d *lab.Device, n uint64) func() bool {
	return func() bool {
		as, err := s.DB.Acked(t.Context(), d.ID.Device, d.Queues.Epoch())
		must(t, err)
		return len(as) == 3 && !slices.ContainsFunc(as, func(a wire.Ack) bool { return a.Sequence < n })
	}
}

func say(d *lab.Device, n int64) {
	d.Report()
	d.Sample(n)
	d.Event(fmt.Sprint("event ", n))
}

// TestAcknowledgementIsLost cuts the line after the server has committed and
// before the device hears of it, once with the device's program going on and once
// with it starting anew: nothing is stored twice, nothing is lost, and the queues
// run empty.
func TestAcknowledgementIsLost(t *testing.T) {
	s := lab.Start(t)
	d, p := s.Enrol("meter-1"), lab.NewProxy(t, s.MQTT)
	d.Start(p.Addr())
	lab.Until(t, "a welcome", d.Link.Connected)
	said := int64(0)
	for _, restart := range []bool{false, true} {
		p.Hold(true)
		for range 3 {
			said++
			say(d, said)
		}
		lab.Until(t, "the commit of a first batch", acked(t, s, d, uint64(said-2)))
		if n := d.Waiting(); n != 3 {
			t.Errorf("%d of 3 queues wait for their acknowledgement", n)
		}
		if restart {
			d.Stop()
		}
		p.Cut()
		p.Hold(false)
		if restart {
			d.Start(p.Addr())
		}
		lab.Until(t, "every acknowledgement", func() bool { return d.Waiting() == 0 })
		wantStored(t, s, "meter-1", uint64(said))
		opened, ended := p.Connections()
		t.Logf("restart %v: %d of each kind stored once, %d connections, %d cut", restart, said, opened, ended)
	}
}

// TestLineThatBreaksAgainAndAgain sends records of every kind while each
// connection lasts for a few messages only: all arrive, each once.
func TestLineThatBreaksAgainAndAgain(t *testing.T) {
	s := lab.Start(t)
	d, p := s.Enrol("meter-1"), lab.NewProxy(t, s.MQTT)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	// A handshake and its greetings take about 3 KiB, an acknowledgement 100 bytes.
	p.CutEach(func(int) int64 { return 1800 + random.Int64N(1600) })
	d.Start(p.Addr())
	const rounds, each, breaks = 24, 10, 40
	for n := range int64(rounds) {
		for i := range int64(each) {
			say(d, n*each+i)
		}
		before, _ := p.Connections()
		if before < breaks {
			lab.Until(t, "the next connection", func() bool { now, _ := p.Connections(); return now > before || d.Waiting() == 0 })
		} else {
			p.CutEach(nil)
		}
	}
	p.CutEach(nil)
	p.Cut()
	lab.Until(t, "every acknowledgement", func() bool { return d.Waiting() == 0 })
	wantStored(t, s, "meter-1", rounds*each)
	opened, ended := p.Connections()
	t.Logf("seed %d: %d records of 3 kinds over %d connections, %d of them cut: each stored once", seed, 3*rounds*each, opened, ended)
}

// TestRecordsNotUnderstood puts records that no server understands between good
// ones in every queue of a real device: the queues run empty, everything else is
// stored, and the audit names each of them with its code.
func TestRecordsNotUnderstood(t *testing.T) {
	s := lab.Start(t)
	d := s.Enrol("meter-1")
	d.Start(s.MQTT)
	for _, bad := range []bool{false, true, false, false, true, false} {
		if !bad {
			say(d, 1)
			continue
		}
		for _, q := range []interface {
			Append([]byte) (uint64, error)
		}{d.Queues.Report, d.Queues.Sample, d.Queues.Event} {
			if _, err := q.Append([]byte("not understood")); err != nil {
				t.Fatal(err)
			}
		}
		d.Link.Flush()
	}
	lab.Until(t, "every acknowledgement", func() bool { return d.Waiting() == 0 })
	wantStored(t, s, "meter-1", 6, 2, 5)
	as, err := s.DB.Audit(t.Context(), "meter-1", "", 100)
	must(t, err)
	named := map[string]int{}
	for _, a := range as {
		if a.Act != "record.refused" {
			continue
		}
		kind, rest, _ := strings.Cut(a.Detail, ",")
		for _, word := range []string{" 2 wire.malformed", " 5 wire.malformed"} {
			named[kind+word] += strings.Count(rest, word)
		}
		t.Log(a.Detail)
	}
	for _, k := range []string{"report", "sample", "event"} {
		if named[k+" 2 wire.malformed"] != 1 || named[k+" 5 wire.malformed"] != 1 {
			t.Errorf("%s: named %v", k, named)
		}
	}
	if d, err := s.DB.Device(t.Context(), "meter-1"); err != nil || d.Counter != 4 || d.Status != fleet.DeviceActive {
		t.Errorf("%+v, %v", d, err)
	}
}
