package lab_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent"
	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/testbed/lab"
)

// enrolAgent gives a whole agent its identity; what it returns runs it, without a
// worker, until it is stopped.
func enrolAgent(t *testing.T, s *lab.Server, id string, log *lab.Log) (run func() (stop func())) {
	t.Helper()
	dir := t.TempDir()
	c := agent.Defaults()
	c.State, c.Run, c.Listen, c.USB, c.Class = filepath.Join(dir, "state"), filepath.Join(dir, "run"), "", "", "lab"
	c.ReconnectMin, c.ReconnectMax = 10*time.Millisecond, 50*time.Millisecond
	_, err := agent.Enroll(t.Context(), c, s.Token().String(), id)
	must(t, err)
	return func() func() {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- agent.Run(ctx, c, slog.New(slog.NewJSONHandler(log, nil))) }()
		stop := sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("the agent of %s: %v", id, err)
			}
		})
		t.Cleanup(stop)
		return stop
	}
}

type eventView struct {
	Type  string `json:"type"`
	Code  string `json:"code"`
	Next  string `json:"next"`
	Times int    `json:"times"`
}

// events are a device's, the oldest first, of a type.
func events(s *lab.Server, id, typ string) []eventView {
	var list struct{ Items []eventView }
	s.Do(http.MethodGet, "/v1/devices/"+id+"/events", nil, &list)
	var out []eventView
	for _, e := range list.Items {
		if e.Type == typ {
			out = append([]eventView{e}, out...)
		}
	}
	return out
}

// TestRefusalsReachTheServer has a thief write into the server's database. The whole
// agent refuses what comes of it, again and again; the operator sees it once, with
// its code and what to do, then how often, and that it is over.
func TestRefusalsReachTheServer(t *testing.T) {
	s := lab.Start(t)
	other := s.Enrol("other")
	other.Start(s.MQTT)
	lab.Until(t, "another device", other.Link.Connected)
	model := catalogtest.Model(t, "digits", "1.0.0", []byte("digits"))
	s.Publish(catalogtest.Runtime(t, "arm64", "2.3.0", []byte("library")), model)
	s.Assign(model, "class=lab-other")
	lab.Until(t, "a higher version of another", func() bool { return director(t, s, "other")["targets"].Version > 1 })
	for id, c := range map[string]struct {
		forge func(rows map[string]fleet.MetaRow, others map[string]fleet.MetaRow)
		code  string
	}{
		"meter-1": {func(rows, others map[string]fleet.MetaRow) {
			for role, r := range others {
				rows[role] = r
			}
		}, trust.CodeWrongDevice},
		"meter-2": {func(rows, _ map[string]fleet.MetaRow) {
			change(rows, "timestamp", func(b []byte) []byte { return bytes.Replace(b, []byte(`"version":1`), []byte(`"version":2`), 1) })
		}, trust.CodeSignature},
		"meter-3": {func(rows, _ map[string]fleet.MetaRow) {
			change(rows, "timestamp", func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), 20_000)...) })
		}, trust.CodeTooLarge},
		"meter-4": {func(rows, _ map[string]fleet.MetaRow) {
			change(rows, "timestamp", func([]byte) []byte { return []byte(`{"signed":null}`) })
		}, trust.CodeMalformed},
	} {
		t.Run(c.code, func(t *testing.T) {
			t.Parallel()
			log := &lab.Log{}
			tries := func() int { return log.Count(map[string]string{"msg": "refused", "code": c.code}) }
			run := enrolAgent(t, s, id, log)
			stop := run()
			lab.Until(t, "its first metadata", func() bool { return len(director(t, s, id)) == 3 })
			stop()
			genuine, forged := director(t, s, id), director(t, s, id)
			c.forge(forged, director(t, s, "other"))
			put(t, s, id, 1000, forged)
			run()
			refused := func() []eventView { return events(s, id, "trust.refused") }
			lab.Until(t, "the event", func() bool { return len(refused()) > 0 })
			if e := refused()[0]; e.Code != c.code || e.Next != trust.Next(c.code) || e.Next == "" {
				t.Errorf("%+v, want %s and its next step", e, c.code)
			}
			var d struct{ Refusal *eventView }
			if s.Do(http.MethodGet, "/v1/devices/"+id, nil, &d); d.Refusal == nil || d.Refusal.Code != c.code {
				t.Errorf("the device shows %+v", d.Refusal)
			}
			lab.Until(t, "two more refusals", func() bool { return tries() >= 3 })
			if n := len(refused()); n != 1 {
				t.Errorf("told %d times", n)
			}
			put(t, s, id, 2000, genuine)
			lab.Until(t, "the end", func() bool { return len(events(s, id, "trust.believed")) > 0 })
			if es := refused(); len(es) != 2 || es[1].Code != c.code || max(1, es[1].Times) != tries()-1 {
				t.Errorf("%d refusals, told as %+v", tries(), es)
			}
			d.Refusal = nil
			if s.Do(http.MethodGet, "/v1/devices/"+id, nil, &d); d.Refusal != nil {
				t.Errorf("it shows what is over: %+v", d.Refusal)
			}
		})
	}
}

// director is a device's newest metadata.
func director(t *testing.T, s *lab.Server, id string) map[string]fleet.MetaRow {
	t.Helper()
	rows, err := s.DB.AllMetadata(t.Context(), "director", id)
	must(t, err)
	out := map[string]fleet.MetaRow{}
	for _, r := range rows {
		out[r.Role] = r
	}
	return out
}

func change(rows map[string]fleet.MetaRow, role string, f func([]byte) []byte) {
	r := rows[role]
	r.Bytes = f(r.Bytes)
	rows[role] = r
}

// put stores files under a device's name, as a version that the server hands out.
func put(t *testing.T, s *lab.Server, id string, version int64, rows map[string]fleet.MetaRow) {
	t.Helper()
	var all []fleet.MetaRow
	for _, r := range rows {
		r.Owner, r.Version = id, version
		all = append(all, r)
	}
	must(t, s.DB.PutMetadata(t.Context(), all, nil, nil, fleet.Audit{ID: strings.Join([]string{"aud", id, time.Now().String()}, "_")}))
}
