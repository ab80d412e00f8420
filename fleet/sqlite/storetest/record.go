package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var errEnough = errors.New("enough")

func metadata(s *suite) {
	row := func(role string, v int64) fleet.MetaRow {
		return fleet.MetaRow{Repo: "catalog", Role: role, Version: v, Bytes: []byte(fmt.Sprint(role, v))}
	}
	if v, b, err := s.Metadata(s.Context(), "catalog", "", "root"); v != 0 || b != nil || err != nil {
		s.Errorf("none yet: %d %s %v", v, b, err)
	}
	s.must(s.PutMetadata(s.Context(), []fleet.MetaRow{row("root", 1), row("targets", 1), row("snapshot", 9)}, nil, nil, act(1, "catalog.install", "catalog")))
	s.must(s.PutMetadata(s.Context(), []fleet.MetaRow{row("root", 2), row("targets", 2)}, nil, nil, fleet.Audit{}))
	s.must(s.PutMetadata(s.Context(), []fleet.MetaRow{{Repo: "director", Owner: "a", Role: "targets", Version: 5, Bytes: []byte("x")}}, nil, nil, fleet.Audit{}))
	s.reopen()
	roots, err := s.Roots(s.Context(), "catalog")
	s.must(err)
	if diff := cmp.Diff([][]byte{[]byte("root1"), []byte("root2")}, roots); diff != "" {
		s.Error(diff)
	}
	all, err := s.AllMetadata(s.Context(), "catalog", "")
	s.must(err)
	if diff := cmp.Diff([]fleet.MetaRow{row("root", 2), row("snapshot", 9), row("targets", 2)}, all); diff != "" {
		s.Error(diff)
	}
	if v, b, err := s.Metadata(s.Context(), "catalog", "", "targets"); v != 2 || string(b) != "targets2" || err != nil {
		s.Errorf("newest: %d %s %v", v, b, err)
	}
	if err := s.PutMetadata(s.Context(), []fleet.MetaRow{row("targets", 2)}, nil, nil, fleet.Audit{}); err == nil {
		s.Error("one version was stored twice")
	}
}

func stale(s *suite) {
	at := func(v int64) []fleet.MetaRow {
		return []fleet.MetaRow{{Repo: "catalog", Role: "production", Version: v, Bytes: []byte("x")}}
	}
	rel := fleet.Release{ID: "rel_1", Channel: "production", Digest: "sha256:1", Release: bundle.Release{Kind: bundle.KindModel, Model: "m", Version: "1.0.0"}}
	s.must(s.PutMetadata(s.Context(), at(1), at(0), nil, fleet.Audit{}))
	for _, expect := range []int64{0, 2} {
		if err := s.PutMetadata(s.Context(), at(2), at(expect), []fleet.Release{rel}, act(1, "x", "x")); !errors.Is(err, fleet.ErrCatalogStale) {
			s.Errorf("made against version %d: %v", expect, err)
		}
	}
	if _, err := s.Release(s.Context(), "production", "m", "1.0.0"); !errors.Is(err, fleet.ErrReleaseUnknown) {
		s.Errorf("a refused change left its release: %v", err)
	}
	if as, _ := s.Audit(s.Context(), "", "", 9); len(as) != 0 {
		s.Errorf("a refused change left an act: %v", as)
	}
	s.must(s.PutMetadata(s.Context(), at(2), at(1), []fleet.Release{rel}, fleet.Audit{}))
}

func releases(s *suite) {
	var all []fleet.Release
	for _, x := range []struct {
		channel, model, version, kind string
		counter                       int64
	}{
		{"production", "m", "1.0.0", bundle.KindModel, 1}, {"production", "m", "1.1.0", bundle.KindModel, 2},
		{"dev", "m", "1.1.0", bundle.KindModel, 1}, {"production", "runtime-litert-arm64", "2.3.0", bundle.KindRuntime, 1},
	} {
		r := fleet.Release{ID: fleet.NewID(fleet.PrefixRelease, start), Channel: x.channel, Digest: "sha256:" + x.version, Length: 77, Published: start, Blobs: []string{"sha256:1", "sha256:2"},
			Release: bundle.Release{Kind: x.kind, Model: x.model, Version: x.version, Counter: x.counter, Size: 1 << 40, Hardware: "arch=arm64"}}
		if x.kind == bundle.KindRuntime {
			r.ABI = &bundle.RuntimeABI{Name: "litert", Version: "2.3.0", Arch: "arm64"}
		}
		all = append(all, r)
	}
	s.must(s.PutMetadata(s.Context(), nil, nil, all, fleet.Audit{}))
	s.reopen()
	for i := range all {
		got, err := s.ReleaseByPath(s.Context(), all[i].Path())
		s.must(err)
		if diff := cmp.Diff(&all[i], got); diff != "" {
			s.Error(diff)
		}
	}
	for _, c := range []struct {
		f    fleet.ReleaseFilter
		want []string
	}{
		{fleet.ReleaseFilter{}, []string{"dev/m/1.1.0", "production/m/1.1.0", "production/m/1.0.0", "production/runtime-litert-arm64/2.3.0"}},
		{fleet.ReleaseFilter{Channel: "dev"}, []string{"dev/m/1.1.0"}},
		{fleet.ReleaseFilter{Kind: bundle.KindRuntime}, []string{"production/runtime-litert-arm64/2.3.0"}},
		{fleet.ReleaseFilter{Channel: "production", Model: "m"}, []string{"production/m/1.1.0", "production/m/1.0.0"}},
	} {
		rs, err := s.Releases(s.Context(), c.f)
		s.must(err)
		var got []string
		for _, r := range rs {
			got = append(got, r.Path())
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			s.Errorf("%+v: %s", c.f, diff)
		}
	}
	for _, path := range []string{"", "m", "production/m/9.9.9", "a/b/c/d", "//"} {
		if _, err := s.ReleaseByPath(s.Context(), path); !errors.Is(err, fleet.ErrReleaseUnknown) {
			s.Errorf("path %q: %v", path, err)
		}
	}
	if err := s.PutMetadata(s.Context(), nil, nil, all[:1], fleet.Audit{}); err == nil {
		s.Error("one version was published twice in a channel")
	}
}

func records(s *suite) {
	const big = 1<<63 + 9
	rep := func(seq uint64, proof string) fleet.Report {
		return fleet.Report{Device: "a", Epoch: big, Sequence: seq, At: start.Add(time.Duration(seq) * time.Second), Proof: proof, Report: wire.Report{Device: "a", Epoch: big, Counter: seq}}
	}
	for range 2 {
		s.must(s.InsertReports(s.Context(), []fleet.Report{rep(1, fleet.Proven), rep(2, fleet.Claimed)}))
	}
	s.must(s.InsertReports(s.Context(), []fleet.Report{rep(2, fleet.Proven), rep(3, fleet.Proven)})) // the second is a repeat
	s.reopen()
	got, err := s.Reports(s.Context(), "a", 9)
	s.must(err)
	if diff := cmp.Diff([]fleet.Report{rep(3, fleet.Proven), rep(2, fleet.Claimed), rep(1, fleet.Proven)}, got); diff != "" {
		s.Error(diff)
	}
	sample := func(seq uint64) fleet.Sample {
		return fleet.Sample{Device: "a", Epoch: big, Sequence: seq, Sample: wire.Sample{Start: int64(seq) * 60, Seconds: 60, Model: "m", Requests: seq}}
	}
	event := func(seq uint64) fleet.Event {
		at := start.Add(time.Duration(seq) * time.Second)
		return fleet.Event{ID: fleet.NewID(fleet.PrefixEvent, at), Device: "a", Epoch: big, Sequence: seq, At: at, Event: wire.Event{Type: "x", Detail: fmt.Sprint(seq)}}
	}
	for range 2 { // the repeat has ids of its own
		s.must(s.InsertSamples(s.Context(), []fleet.Sample{sample(1), sample(2), sample(3)}))
		s.must(s.InsertEvents(s.Context(), []fleet.Event{event(1), event(2), event(3)}))
	}
	ss, err := s.Samples(s.Context(), "a", 120, 9)
	s.must(err)
	if diff := cmp.Diff([]fleet.Sample{sample(2), sample(3)}, ss); diff != "" {
		s.Error(diff)
	}
	models := map[string]uint64{}
	for _, device := range []string{"a", "c"} {
		x := sample(9)
		x.Device, x.Sample.Model = device, "n"
		s.must(s.InsertSamples(s.Context(), []fleet.Sample{x}))
	}
	s.must(s.ModelSamples(s.Context(), "n", 540, func(x *fleet.Sample) error { models[x.Device] += x.Sample.Requests; return nil }))
	s.must(s.ModelSamples(s.Context(), "n", 541, func(*fleet.Sample) error { models["late"]++; return nil }))
	if diff := cmp.Diff(map[string]uint64{"a": 9, "c": 9}, models); diff != "" {
		s.Error(diff)
	}
	if err := s.ModelSamples(s.Context(), "n", 0, func(*fleet.Sample) error { return errEnough }); !errors.Is(err, errEnough) {
		s.Errorf("an error of the reader: %v", err)
	}
	es, err := s.Events(s.Context(), "a", "", 2)
	s.must(err)
	if len(es) != 2 || es[0].Event.Detail != "3" {
		s.Fatalf("events: %+v", es)
	}
	if es, _ = s.Events(s.Context(), "", es[1].ID, 9); len(es) != 1 || es[0].Event.Detail != "1" {
		s.Errorf("the next page: %+v", es)
	}
	if es, _ = s.Events(s.Context(), "b", "", 9); len(es) != 0 {
		s.Errorf("another device's: %+v", es)
	}
}

func acks(s *suite) {
	for _, seq := range []uint64{5, 3, 9, 9, 1} {
		s.must(s.SetAcked(s.Context(), "a", wire.Ack{Kind: wire.KindReport, Epoch: 1 << 63, Sequence: seq}))
	}
	s.must(s.SetAcked(s.Context(), "a", wire.Ack{Kind: wire.KindEvent, Epoch: 1 << 63, Sequence: 2}))
	s.must(s.SetAcked(s.Context(), "a", wire.Ack{Kind: wire.KindEvent, Epoch: 7, Sequence: 4}))
	s.reopen()
	got, err := s.Acked(s.Context(), "a", 1<<63)
	s.must(err)
	want := []wire.Ack{{Kind: wire.KindEvent, Epoch: 1 << 63, Sequence: 2}, {Kind: wire.KindReport, Epoch: 1 << 63, Sequence: 9}}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Error(diff)
	}
}

func audit(s *suite) {
	var want []fleet.Audit
	for n := range 5 {
		a := act(n, "x.y", fmt.Sprint("o", n%2))
		want = append([]fleet.Audit{a}, want...)
		s.must(s.AddAudit(s.Context(), a))
	}
	s.reopen()
	got, err := s.Audit(s.Context(), "", "", 3)
	s.must(err)
	rest, err := s.Audit(s.Context(), "", got[2].ID, 9)
	s.must(err)
	if diff := cmp.Diff(want, append(got, rest...)); diff != "" {
		s.Error(diff)
	}
	if of, _ := s.Audit(s.Context(), "o1", "", 9); len(of) != 2 {
		s.Errorf("%d acts on o1", len(of))
	}
}
