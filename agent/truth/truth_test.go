package truth_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/agent/truth"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var day0 = time.Unix(1_800_000_000, 0)

var (
	old   = observe.Key{Model: "digits", Path: "dev/digits/1.0.0", Bundle: "sha256:a"}
	newer = observe.Key{Model: "digits", Path: "dev/digits/1.1.0", Bundle: "sha256:b", Rollout: "rol_1", Arm: "treated"}
	other = observe.Key{Model: "letters", Path: "dev/letters/1.0.0"}
)

// rig is a Book with a clock of the test's.
type rig struct {
	*truth.Book
	t      testing.TB
	now    time.Time
	window time.Duration
	judged []truth.Judged
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, now: day0, window: time.Minute}
	active := map[string]observe.Key{"digits": newer, "letters": other}
	r.Book = truth.New(truth.Config{
		Now: func() time.Time { return r.now }, Window: func() time.Duration { return r.window },
		Active: func(m string) (observe.Key, bool) { k, ok := active[m]; return k, ok },
		Judged: func(j truth.Judged) { r.judged = append(r.judged, j) },
	})
	return r
}

// answers has a release answer with a class.
func (r *rig) answers(id string, k observe.Key, class int) {
	a := &oip.Answered{ID: id, Slot: infer.Slot{Key: k}, Labels: func() []string { return []string{"one", "two", "0"} }}
	r.Answered(a, truth.Seen{Certainty: sketch.Certainty{Best: class, Score: 0.9}, Classes: 3})
}

func (r *rig) post(path, body string) (int, string) {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

// TestWordCountsForTheReleaseThatAnswered also when another one serves by then.
func TestWordCountsForTheReleaseThatAnswered(t *testing.T) {
	r := newRig(t)
	r.answers("a", old, 0)
	r.answers("b", old, 1)
	r.answers("c", newer, 2)
	r.answers("d", newer, 1)
	for body, want := range map[string]int{
		`{"request_id":"a","label":"one"}`:                     200,
		`{"request_id":"b","label":0}`:                         200,
		`{"request_id":"c","label":"0"}`:                       200, // a name, not an index
		`{"request_id":"d","correct":false}`:                   200,
		`{"request_id":"e","label":"one"}`:                     404,
		`{"request_id":"e","label":"one","model":"digits"}`:    404,
		`{"request_id":"a","label":"one","model":"letters"}`:   404,
		`{"request_id":"a","label":"ten"}`:                     400,
		`{"request_id":"a","label":3}`:                         400,
		`{"request_id":"a","label":-1}`:                        400,
		`{"request_id":"a","label":null}`:                      400,
		`{"request_id":"a","label":""}`:                        400,
		`{"request_id":"a"}`:                                   400,
		`{"request_id":"a","label":"one","correct":true}`:      400,
		`{"label":"one"}`:                                      400,
		`{"request_id":"a","label":"one","more":1}`:            400,
		`{"request_id":"a","label":"one"} x`:                   400,
		`[]`:                                                   400,
		``:                                                     400,
		`{"request_id":"` + strings.Repeat("a", 5000) + `"}`:   400,
		`{"request_id":"x","label":"one","model":"nobody"}`:    404,
		`{"request_id":"y","correct":true,"model":"letters"}`:  404,
		`{"request_id":["y"],"correct":true,"model":"digits"}`: 400,
	} {
		status, answer := r.post("/v1/feedback", body)
		if status != want || status != 200 && !regexp.MustCompile(`"code":"feedback\.[a-z]+","detail":".+","next":".+"`).MatchString(answer) {
			t.Errorf("%.80s: %d %s", body, status, answer)
		}
	}
	r.now = r.now.Add(time.Minute)
	samples := map[string]*wire.Truth{}
	for _, s := range r.Join(nil, false) {
		samples[s.Path] = s.Truth
		if err := s.Check(); err != nil {
			t.Error(err)
		}
	}
	want := map[string]*wire.Truth{
		old.Path:   {Right: 1, Wrong: 1, Confused: []wire.Confused{{Right: 0, Answered: 1, Count: 1}}},
		newer.Path: {Right: 1, Wrong: 1, Other: 1, Late: 1},
		other.Path: {Late: 2},
	}
	if d := cmp.Diff(want, samples); d != "" {
		t.Error(d)
	}
	if again := r.Join(nil, true); len(again) != 0 {
		t.Errorf("told twice: %v", again)
	}
}

// TestFirstWordCounts and the same again changes nothing.
func TestFirstWordCounts(t *testing.T) {
	r := newRig(t)
	r.answers("a", old, 0)
	for i, tt := range []struct {
		body string
		want int
	}{{`{"request_id":"a","label":"two"}`, 200}, {`{"request_id":"a","label":1}`, 200}, {`{"request_id":"a","correct":true}`, 409}, {`{"request_id":"a","label":"one"}`, 409}} {
		if status, answer := r.post("/v1/feedback", tt.body); status != tt.want {
			t.Errorf("%d: %d %s", i, status, answer)
		}
	}
	if len(r.judged) != 1 || r.judged[0].Label != 1 || r.judged[0].Name != "two" || r.judged[0].Right {
		t.Errorf("%+v", r.judged)
	}
	// An id that comes again is the newest answer.
	r.answers("a", newer, 2)
	if status, answer := r.post("/v1/feedback", `{"request_id":"a","label":"0"}`); status != 200 || !strings.Contains(answer, newer.Path) {
		t.Errorf("%d %s", status, answer)
	}
	// Two models may answer under one id.
	r.answers("a", other, 2)
	if status, answer := r.post("/v1/feedback", `{"request_id":"a","correct":true}`); status != 409 || !strings.Contains(answer, "feedback.ambiguous") {
		t.Errorf("%d %s", status, answer)
	}
	if status, answer := r.post("/v1/feedback", `{"request_id":"a","correct":true,"model":"letters"}`); status != 200 {
		t.Errorf("%d %s", status, answer)
	}
}

// TestLateIsTold by a code, and counted.
func TestLateIsTold(t *testing.T) {
	r := newRig(t)
	for i := range truth.MaxAnswers + 1 {
		r.answers(fmt.Sprint(i), old, 0)
	}
	status := func(id int) int {
		s, _ := r.post("/v1/feedback", fmt.Sprintf(`{"request_id":"%d","correct":true}`, id))
		return s
	}
	if a, b := status(0), status(1); a != 404 || b != 200 {
		t.Errorf("the oldest of too many: %d, the next: %d", a, b)
	}
	r.now = r.now.Add(truth.Life + 1)
	if s := status(2); s != 404 {
		t.Errorf("after its time: %d", s)
	}
	var late, right uint64
	for _, s := range r.Join(nil, true) {
		late, right = late+s.Truth.Late, right+s.Truth.Right
	}
	if late != 1 || right != 1 {
		t.Errorf("%d late, %d right", late, right)
	}
}

// TestMemoryIsBounded however many answers there are and however long their ids.
func TestMemoryIsBounded(t *testing.T) {
	r := newRig(t)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	long := strings.Repeat("x", 10_000)
	before := heap()
	for i := range 5 * truth.MaxAnswers {
		r.answers(fmt.Sprint(long, i), old, 0)
	}
	grew := int64(heap()) - int64(before)
	t.Logf("%d answers are remembered in %d kB", truth.MaxAnswers, grew>>10)
	if grew > 512<<10 {
		t.Errorf("%d bytes", grew)
	}
	runtime.KeepAlive(r)
}

func TestConfusionIsBounded(t *testing.T) {
	r := newRig(t)
	for i := range 200 {
		a := &oip.Answered{ID: fmt.Sprint(i), Slot: infer.Slot{Key: old}, Labels: func() []string { return nil }}
		r.Answered(a, truth.Seen{Certainty: sketch.Certainty{Best: i}, Classes: 5000})
		label := 4999 // beyond what is counted by class
		if i < 100 {
			label = (i + 1) % 200
		}
		if _, err := r.Judge(truth.Feedback{RequestID: fmt.Sprint(i), Index: &label}); err != nil {
			t.Fatal(err)
		}
	}
	s := r.Join(nil, true)[0]
	if err := s.Check(); err != nil || s.Truth.Wrong != 200 || len(s.Truth.Confused) != wire.MaxConfused || s.Truth.Other != 200-wire.MaxConfused {
		t.Errorf("%v: %d wrong, %d pairs, %d others", err, s.Truth.Wrong, len(s.Truth.Confused), s.Truth.Other)
	}
}

func TestMetrics(t *testing.T) {
	r := newRig(t)
	for body, want := range map[string]int{
		`{"name":"bill.corrections","value":1}`:                204,
		`{"name":"bill.corrections","value":3}`:                204,
		`{"name":"queue","value":-2.5,"model":"digits"}`:       204,
		`{"name":"Queue","value":1}`:                           400,
		`{"name":"","value":1}`:                                400,
		`{"name":"` + strings.Repeat("a", 49) + `","value":1}`: 400,
		`{"name":"a"}`:                                           400,
		`{"name":"a","value":null}`:                              400,
		`{"name":"a","value":"1"}`:                               400,
		`{"name":"a","value":1e300}`:                             400,
		`{"name":"a","value":1,"model":"nobody"}`:                404,
		`{"name":"a","value":1,"unit":"s"}`:                      400,
		`{"name":"a b","value":1,"model":"digits"}`:              400,
		`{"name":"1st","value":1,"model":"digits"}`:              400,
		`{"name":"` + "a\\u0000" + `","value":1,"model":"none"}`: 400,
	} {
		if status, answer := r.post("/v1/metrics", body); status != want {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
	for i := range wire.MaxMetrics {
		status, _ := r.post("/v1/metrics", fmt.Sprintf(`{"name":"m%d","value":1}`, i))
		if want := map[bool]int{true: 204, false: 429}[i < wire.MaxMetrics-1]; status != want {
			t.Errorf("name %d: %d", i+2, status)
		}
	}
	got := map[string]sketch.Moments{}
	for _, s := range r.Join(nil, true) {
		for name, m := range s.Metrics {
			got[s.Path+" "+name] = m
		}
		if err := s.Check(); err != nil {
			t.Error(err)
		}
	}
	if m := got[" bill.corrections"]; m.N != 2 || m.Mean != 2 || m.Min != 1 || m.Max != 3 {
		t.Errorf("%+v", m)
	}
	if m := got[newer.Path+" queue"]; m.N != 1 || m.Mean != -2.5 {
		t.Errorf("%+v", m)
	}
}

// TestJoin puts what was said beside what was counted in the same window.
func TestJoin(t *testing.T) {
	r := newRig(t)
	r.answers("a", newer, 0)
	yes := true
	if _, err := r.Judge(truth.Feedback{RequestID: "a", Correct: &yes}); err != nil {
		t.Fatal(err)
	}
	of := func(path string) wire.Sample {
		return wire.Sample{Start: day0.Unix(), Seconds: 60, Model: newer.Model, Path: path, Bundle: newer.Bundle, Rollout: newer.Rollout, Arm: newer.Arm, Requests: 7}
	}
	r.now = r.now.Add(time.Minute)
	out := r.Join([]wire.Sample{of("dev/digits/1.0.0"), of(newer.Path)}, false)
	if len(out) != 2 || out[0].Truth != nil || out[1].Truth == nil || out[1].Truth.Right != 1 || out[1].Requests != 7 {
		t.Errorf("%+v", out)
	}
}

// TestSee reads the class, the score and how sure it is from a quantized output.
func TestSee(t *testing.T) {
	c := &bundle.Contract{Watch: &bundle.Watch{Output: "scores"}, Outputs: []bundle.Tensor{
		{Name: "other", DType: "FP32", Shape: []int{1}}, {Name: "scores", DType: "UINT8", Shape: []int{1, 3}, Quant: &bundle.Quant{Scale: []float32{1.0 / 256}, Zero: []int64{0}}},
	}}
	s := truth.See(&oip.Answered{Slot: infer.Slot{Contract: c}, Outputs: [][]byte{{0, 0, 0, 0}, {64, 128, 64}}})
	if s.Best != 1 || s.Score != 0.5 || s.Classes != 3 || !s.OK {
		t.Errorf("%+v", s)
	}
	c.Watch = nil
	if s := truth.See(&oip.Answered{Slot: infer.Slot{Contract: c}}); s.Best != -1 || s.Classes != 0 {
		t.Errorf("%+v", s)
	}
}

// TestDescription keeps the API's description true: every path that it has is
// served, and every code that is sent is in it.
func TestDescription(t *testing.T) {
	r := newRig(t)
	server := httptest.NewServer(r.Handler())
	defer server.Close()
	resp, err := http.Get(server.URL + "/v1/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	paths := regexp.MustCompile(`(?m)^  (/v1/\S+):$`).FindAllStringSubmatch(string(b), -1)
	if len(paths) != 3 {
		t.Errorf("%d paths", len(paths))
	}
	for _, p := range paths {
		if status, _ := r.post(p[1], "{}"); p[1] != "/v1/openapi.yaml" && status != 400 {
			t.Errorf("%s: %d", p[1], status)
		}
	}
	if status, answer := r.post("/v1/other", "{}"); status != 404 || !strings.Contains(answer, "route.unknown") {
		t.Errorf("%d %s", status, answer)
	}
	for _, file := range []string{"said.go", "handler.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, code := range regexp.MustCompile(`"((?:feedback|metric)\.[a-z]+)"`).FindAllStringSubmatch(string(source), -1) {
			if !strings.Contains(string(b), code[1]) {
				t.Errorf("the description lacks %s", code[1])
			}
		}
	}
}

// FuzzFeedback sends anything: no panic, and what is refused has a code.
func FuzzFeedback(f *testing.F) {
	for _, s := range []string{`{"request_id":"a","label":"one"}`, `{"request_id":"a","label":1}`, `{"request_id":"a","correct":false}`, `{"name":"a","value":1}`, `{`, `null`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := newRig(t)
		r.answers("a", old, 0)
		for _, path := range []string{"/v1/feedback", "/v1/metrics"} {
			if status, answer := r.post(path, body); status >= 300 && !strings.Contains(answer, `"code":"`) || status >= 500 {
				t.Fatalf("%s: %d %s", path, status, answer)
			}
		}
		for _, s := range r.Join(nil, true) {
			b, err := wire.Encode(&s)
			if err = errors.Join(err, wire.Decode(b, &wire.Sample{})); err != nil {
				t.Fatal(err)
			}
		}
	})
}
