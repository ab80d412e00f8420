package web

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
)

// readers is a server with three devices and one release of the model reader.
func readers(t *testing.T) *server {
	t.Helper()
	s := newServer(t)
	s.ceremony()
	for _, name := range []string{"meter-1", "meter-2", "meter-3"} {
		s.enrol(name, map[string]string{"site": "harbour"})
	}
	s.release("reader", "1.0.0", 1)
	return s
}

func spec(version string) map[string]any {
	return map[string]any{
		"model": "reader", "version": version, "channel": "dev", "selector": "site=harbour", "bake": "10s",
		"stages": []any{map[string]any{"count": 1}, map[string]any{"percent": 100, "bake": "1m30s"}},
	}
}

func TestRollouts(t *testing.T) {
	s := readers(t)
	var r RolloutView
	s.ask(fleet.RoleOperator, "POST", "/v1/rollouts", spec("1.0.0")).ok(&r)
	if r.Status != fleet.RolloutRunning || r.Devices != 3 || r.Counts.Waiting != 3 || len(r.Stages) != 3 || !r.Stages[2].Control {
		t.Errorf("made %+v", r)
	}
	if r.Spec.Bake.String() != "10s" || r.Spec.Stages[1].Bake.String() != "1m30s" {
		t.Errorf("bakes %v, %v", r.Spec.Bake, r.Spec.Stages[1].Bake)
	}
	s.ask(fleet.RoleOperator, "POST", "/v1/rollouts", spec("1.0.0")).refused(409, "rollout.conflict")
	var members page[MemberView]
	s.ask(fleet.RoleViewer, "GET", "/v1/rollouts/"+r.ID+"/members", nil).ok(&members.Body)
	if len(members.Body.Items) != 3 || members.Body.Items[0].Class != "amd64-test" {
		t.Errorf("members %+v", members.Body.Items)
	}
	var piece page[MemberView]
	var pieces []MemberView
	for more := true; more; more = piece.Body.Next != "" {
		after := piece.Body.Next
		piece = page[MemberView]{}
		s.ask(fleet.RoleViewer, "GET", "/v1/rollouts/"+r.ID+"/members?limit=2&after="+after, nil).ok(&piece.Body)
		pieces = append(pieces, piece.Body.Items...)
	}
	if d := cmp.Diff(members.Body.Items, pieces); d != "" {
		t.Errorf("in pages: %s", d)
	}
	for _, act := range []struct {
		verb   string
		body   any
		status string
	}{{"pause", map[string]string{"reason": "lunch"}, fleet.RolloutPaused}, {"resume", nil, fleet.RolloutRunning}, {"abort", map[string]string{}, fleet.RolloutAborted}} {
		s.ask(fleet.RoleOperator, "POST", "/v1/rollouts/"+r.ID+"/"+act.verb, act.body).ok(&r)
		if r.Status != act.status {
			t.Errorf("%s: %s", act.verb, r.Status)
		}
	}
	s.ask(fleet.RoleOperator, "POST", "/v1/rollouts/"+r.ID+"/resume", nil).refused(409, "rollout.state")
	for _, path := range []string{"", "/members", "/gates", "/watch"} {
		s.ask(fleet.RoleViewer, "GET", "/v1/rollouts/none"+path, nil).refused(404, "rollout.unknown")
	}
	s.ask(fleet.RoleOperator, "POST", "/v1/rollouts/none/pause", nil).refused(404, "rollout.unknown")
	var list page[RolloutView]
	s.ask(fleet.RoleViewer, "GET", "/v1/rollouts?status=aborted", nil).ok(&list.Body)
	if len(list.Body.Items) != 1 || list.Body.Items[0].ID != r.ID {
		t.Errorf("list %+v", list.Body.Items)
	}
	if d := cmp.Diff([]string{"rollout.create", "rollout.pause", "rollout.resume", "rollout.abort"}, acted(s, r.ID)); d != "" {
		t.Error(d)
	}
}

// counting counts what is asked of a store about the devices of rollouts.
type counting struct {
	Store
	members, tallies int
}

func (c *counting) MemberPage(ctx context.Context, rollout, after string, limit int) ([]fleet.Member, error) {
	c.members++
	return c.Store.MemberPage(ctx, rollout, after, limit)
}

func (c *counting) Tallies(ctx context.Context, rollouts []string) (map[string][]fleet.Tally, error) {
	c.tallies++
	return c.Store.Tallies(ctx, rollouts)
}

// TestListsOfRollouts goes through many of them page by page: each page asks for the
// counts of all its rollouts at once, and for no device alone.
func TestListsOfRollouts(t *testing.T) {
	s := readers(t)
	store := &counting{Store: s.db}
	s.config.Store = store
	s.http.Config.Handler = New(s.config)
	const n = 7
	var made []string
	for range n {
		var r RolloutView
		s.ask(fleet.RoleOperator, "POST", "/v1/rollouts", spec("1.0.0")).ok(&r)
		s.ask(fleet.RoleOperator, "POST", "/v1/rollouts/"+r.ID+"/abort", nil).ok(nil)
		made = append(made, r.ID)
	}
	slices.Reverse(made)
	store.tallies = 0
	var seen []string
	pages, after := 0, ""
	for {
		var list page[RolloutView]
		s.ask(fleet.RoleViewer, "GET", "/v1/rollouts?limit=3&after="+after, nil).ok(&list.Body)
		pages++
		for _, r := range list.Body.Items {
			seen = append(seen, r.ID)
			if r.Devices != 3 || r.Counts.Waiting != 3 || len(r.Stages) != 3 || r.Stages[2].Target != 3 {
				t.Errorf("%+v", r)
			}
		}
		if after = list.Body.Next; after == "" {
			break
		}
	}
	if d := cmp.Diff(made, seen); d != "" {
		t.Error(d)
	}
	if pages != 3 || store.tallies != pages || store.members != 0 {
		t.Errorf("%d pages asked for counts %d times and for members %d times", pages, store.tallies, store.members)
	}
}

func acted(s *server, object string) []string {
	var out []string
	for _, a := range s.acts() {
		if act, ok := strings.CutSuffix(a, " "+object); ok {
			out = append(out, act)
		}
	}
	return out
}

// TestWatch reads events until the rollout has ended; the server ends the stream.
func TestWatch(t *testing.T) {
	s := readers(t)
	var r RolloutView
	s.ask(fleet.RoleOperator, "POST", "/v1/rollouts", spec("1.0.0")).ok(&r)
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.http.URL+"/v1/rollouts/"+r.ID+"/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = bearer(s.tokens[fleet.RoleViewer])
	resp, err := s.http.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || ct != "text/event-stream" {
		t.Fatalf("%s, %s", resp.Status, ct)
	}
	var seen []string
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var v RolloutView
		if err := json.Unmarshal([]byte(data), &v); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, v.Status)
		if verb := map[int]string{1: "pause", 2: "abort"}[len(seen)]; verb != "" {
			s.ask(fleet.RoleOperator, "POST", "/v1/rollouts/"+r.ID+"/"+verb, nil).ok(nil)
			s.changed <- struct{}{}
		}
	}
	if d := cmp.Diff([]string{fleet.RolloutRunning, fleet.RolloutPaused, fleet.RolloutAborted}, seen); d != "" || lines.Err() != nil {
		t.Error(d, lines.Err())
	}
}

// TestIdempotency sends creations again, as after a lost answer.
func TestIdempotency(t *testing.T) {
	s := readers(t)
	keyed := func(role, key string) http.Header {
		h := bearer(s.tokens[role])
		h.Set("Idempotency-Key", key)
		return h
	}
	for _, c := range []struct {
		path, role    string
		first, second any
	}{
		{"/v1/rollouts", fleet.RoleOperator, spec("1.0.0"), spec("2.0.0")},
		{"/v1/enrol-tokens", fleet.RoleOperator, map[string]any{"channel": "dev"}, map[string]any{"channel": "staging"}},
		{"/v1/access", fleet.RoleAdmin, map[string]any{"name": "a", "role": "viewer"}, map[string]any{"name": "b", "role": "viewer"}},
	} {
		a := s.send("POST", c.path, c.first, keyed(c.role, "k"+c.path))
		a.ok(nil)
		b := s.send("POST", c.path, c.first, keyed(c.role, "k"+c.path))
		b.ok(nil)
		if string(a.body) != string(b.body) {
			t.Errorf("%s: %s, then %s", c.path, a.body, b.body)
		}
		s.send("POST", c.path, c.second, keyed(c.role, "k"+c.path)).refused(422, "request.key_reused")
	}
	// Another token's key is another key, and a refusal is not remembered.
	token := map[string]any{"channel": "dev"}
	a := s.send("POST", "/v1/enrol-tokens", token, keyed(fleet.RoleAdmin, "k/v1/enrol-tokens"))
	a.ok(nil)
	if n := len(acted(s, "")); n != 0 {
		t.Errorf("%d acts without an object", n)
	}
	s.send("POST", "/v1/rollouts", spec("3.0.0"), keyed(fleet.RoleOperator, "later")).refused(404, "release.unknown")
	s.release("reader", "3.0.0", 3)
	s.send("POST", "/v1/rollouts", spec("3.0.0"), keyed(fleet.RoleOperator, "later")).refused(409, "rollout.conflict")
}
