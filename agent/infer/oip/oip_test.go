package oip_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func TestMain(m *testing.M) { infertest.Main(m) }

// serve starts a front with one release behind it.
func serve(t *testing.T, release string) (base string, pid func() int) {
	t.Helper()
	s, _ := infertest.Server(t)
	if err := s.Activate(t.Context(), infertest.Digits(t, release)); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(oip.Handler(oip.Config{Engine: s, Version: "1.2.3"}))
	t.Cleanup(h.Close)
	return h.URL, func() int { return s.Status()[0].PID }
}

func do(t *testing.T, method, url, contentType, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s %s: %d with %q, which is no JSON object", method, url, resp.StatusCode, b)
	}
	return resp.StatusCode, v
}

func TestMetadata(t *testing.T) {
	base, pid := serve(t, "1.1.0")
	tensors := map[string]any{
		"name": "digits", "versions": []any{"1.1.0"}, "platform": "litert",
		"inputs":  []any{map[string]any{"name": "image", "datatype": "FP32", "shape": []any{1.0, 8.0, 8.0, 1.0}}},
		"outputs": []any{map[string]any{"name": "scores", "datatype": "FP32", "shape": []any{1.0, 10.0}}},
	}
	for path, want := range map[string]any{
		"/v2":                                    map[string]any{"name": "dunlin", "version": "1.2.3", "extensions": []any{"binary_tensor_data", "classification", "model_configuration", "model_repository", "parameters", "statistics"}},
		"/v2/health/live":                        map[string]any{"live": true},
		"/v2/health/ready":                       map[string]any{"ready": true},
		"/v2/models/digits":                      tensors,
		"/v2/models/digits/versions/1.1.0":       tensors,
		"/v2/models/digits/ready":                map[string]any{"name": "digits", "ready": true},
		"/v2/models/digits/versions/1.1.0/ready": map[string]any{"name": "digits", "ready": true},
	} {
		status, have := do(t, "GET", base+path, "", "")
		if d := cmp.Diff(want, any(have)); status != http.StatusOK || d != "" {
			t.Errorf("%s: %d %s", path, status, d)
		}
	}
	for _, path := range []string{
		"/", "/v1", "/v2/", "/v2/models", "/v2/models/other", "/v2/models/digits/versions/9.9.9", "/v2/models/other/ready",
		"/v2/models/digits/versions/1.1.0/infer", "/v2/models/digits/infer", "/v2/models/other/versions/1.1.0",
	} {
		status, have := do(t, "GET", base+path, "", "")
		if status != http.StatusNotFound || have["error"] == nil {
			t.Errorf("%s: %d %v", path, status, have)
		}
	}
	syscall.Kill(pid(), syscall.SIGKILL)
	for status := http.StatusOK; status != http.StatusServiceUnavailable; {
		status, _ = do(t, "GET", base+"/v2/health/ready", "", "")
	}
}

// image is the held-out image i as JSON, flat and nested.
func image(t testing.TB, i int) (flat, nested string) {
	file := filepath.Join(infertest.Root(t), "testbed", "models", "digits", "test.npz")
	v := bundle.Values("FP32", infertest.Array(t, file, "images").Row(i))
	f := make([]string, len(v))
	for i, x := range v {
		f[i] = fmt.Sprint(x)
	}
	var rows []string
	for y := range 8 {
		rows = append(rows, "[["+strings.Join(f[8*y:8*y+8], "],[")+"]]")
	}
	return "[" + strings.Join(f, ", ") + "]", "[[" + strings.Join(rows, ",\n ") + "]]"
}

func request(data string) string {
	return `{"inputs":[{"name":"image","datatype":"FP32","shape":[1,8,8,1],"data":` + data + `}]}`
}

func TestInfer(t *testing.T) {
	base, _ := serve(t, "1.1.0")
	flat, nested := image(t, 0)
	file := filepath.Join(infertest.Root(t), "testbed", "models", "digits", "test.npz")
	label := bundle.Values("INT64", infertest.Array(t, file, "labels").Row(0))[0]
	for name, body := range map[string]string{
		"flat": request(flat), "nested": request(nested),
		"all the protocol allows": `{"id":"42","parameters":{"a":[1]},"inputs":[{"parameters":{},"data":` + flat + `,"shape":[1,8,8,1],"datatype":"FP32","name":"image"}],"outputs":[{"name":"scores","parameters":{"binary_data":false}}]}`,
	} {
		for _, contentType := range []string{"application/json", "application/octet-stream", "text/plain; charset=x", ""} {
			for _, path := range []string{"/v2/models/digits/infer", "/v2/models/digits/versions/1.1.0/infer"} {
				status, have := do(t, "POST", base+path, contentType, body)
				if status != http.StatusOK {
					t.Fatalf("%s: %d %v", name, status, have)
				}
				out := have["outputs"].([]any)[0].(map[string]any)
				data := out["data"].([]any)
				best := 0
				for i, x := range data {
					if x.(float64) > data[best].(float64) {
						best = i
					}
				}
				delete(out, "data")
				want := map[string]any{"model_name": "digits", "model_version": "1.1.0",
					"outputs": []any{map[string]any{"name": "scores", "datatype": "FP32", "shape": []any{1.0, 10.0}}}}
				if strings.Contains(body, `"id"`) {
					want["id"] = "42"
				} else if id, _ := have["id"].(string); len(id) == 26 { // made here
					delete(have, "id")
				}
				if d := cmp.Diff(want, have); d != "" || len(data) != 10 || best != int(label) {
					t.Errorf("%s: class %d, %v; %s", name, best, label, d)
				}
			}
		}
	}
}

// TestQuantized asks the int8 release, whose tensors are small whole numbers.
func TestQuantized(t *testing.T) {
	base, _ := serve(t, "1.1.1")
	body := strings.Replace(request("["+strings.Repeat("-128,", 63)+"127]"), "FP32", "INT8", 1)
	status, have := do(t, "POST", base+"/v2/models/digits/infer", "", body)
	if status != http.StatusOK || have["outputs"].([]any)[0].(map[string]any)["datatype"] != "INT8" {
		t.Fatal(status, have)
	}
	for _, x := range []string{"128", "-129", "1.0", "1e1", "0.5", "-0.0", "true", "9223372036854775808"} {
		bad := strings.Replace(body, "127]", x+"]", 1)
		if status, have := do(t, "POST", base+"/v2/models/digits/infer", "", bad); status != http.StatusBadRequest || !strings.Contains(have["error"].(string), "element 63") {
			t.Errorf("%s: %d %v", x, status, have)
		}
	}
}

// TestBadRequests are refused with what was wrong, and change nothing.
func TestBadRequests(t *testing.T) {
	base, _ := serve(t, "1.0.0")
	flat, nested := image(t, 0)
	good := request(flat)
	in := func(s string) string { return `{"inputs":[` + s + `]}` }
	tensor := strings.TrimSuffix(strings.TrimPrefix(good, `{"inputs":[`), `]}`)
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for name, c := range map[string]struct{ body, says string }{
		"empty":                   {"", "ends too early"},
		"cut":                     {good[:len(good)/2], "ends too early"},
		"no object":               {"[]", "object is wanted"},
		"null":                    {"null", "object is wanted"},
		"binary":                  {"\x00\x01\xff", "invalid character"},
		"trailing value":          {good + "{}", "something follows"},
		"trailing garbage":        {good + "x", "something follows"},
		"no inputs":               {`{}`, "is missing"},
		"inputs null":             {`{"inputs":null}`, "list is wanted"},
		"inputs an object":        {`{"inputs":{}}`, "list is wanted"},
		"inputs empty":            {in(""), "is missing"},
		"an input that is null":   {in("null"), "object is wanted"},
		"unknown key":             {`{"inputs":[],"more":1}`, "unknown key"},
		"another case":            {`{"Inputs":[` + tensor + `]}`, "unknown key"},
		"a key twice":             {replace(`"shape":[1,8,8,1]`, `"shape":[1,8,8,1],"shape":[1,8,8,1]`), "twice"},
		"inputs twice":            {`{"inputs":[` + tensor + `],"inputs":[` + tensor + `]}`, "twice"},
		"id a number":             {`{"id":5,"inputs":[` + tensor + `]}`, "a string is wanted"},
		"parameters a list":       {`{"parameters":[],"inputs":[` + tensor + `]}`, "an object is wanted"},
		"duplicate input":         {in(tensor + "," + tensor), "twice"},
		"unknown input":           {replace(`"image"`, `"picture"`), `no input "picture"`},
		"input too many":          {in(tensor + "," + strings.Replace(tensor, `"image"`, `"second"`, 1)), `no input "second"`},
		"no name":                 {replace(`"name":"image",`, ``), "no input"},
		"name a number":           {replace(`"image"`, `7`), "a string is wanted"},
		"datatype missing":        {replace(`"datatype":"FP32",`, ``), "FP32 is wanted"},
		"another datatype":        {replace(`FP32`, `INT32`), "FP32 is wanted"},
		"datatype in lower case":  {replace(`FP32`, `fp32`), "FP32 is wanted"},
		"shape missing":           {replace(`"shape":[1,8,8,1],`, ``), "dimensions"},
		"another shape":           {replace(`[1,8,8,1]`, `[1,64,1,1]`), "is wanted"},
		"another rank":            {replace(`[1,8,8,1]`, `[1,8,8]`), "dimensions"},
		"a batch":                 {replace(`[1,8,8,1]`, `[2,8,8,1]`), "is wanted"},
		"negative shape":          {replace(`[1,8,8,1]`, `[-1,8,8,1]`), "is wanted"},
		"shape of strings":        {replace(`[1,8,8,1]`, `["1",8,8,1]`), "whole numbers"},
		"shape of fractions":      {replace(`[1,8,8,1]`, `[1.5,8,8,1]`), "whole numbers"},
		"a huge shape":            {replace(`[1,8,8,1]`, `[1,8,8,99999999999999999999]`), "whole numbers"},
		"data missing":            {in(`{"name":"image","datatype":"FP32","shape":[1,8,8,1]}`), "data is missing"},
		"data null":               {request("null"), "list is wanted"},
		"data a number":           {request("5"), "list is wanted"},
		"data a string":           {request(`"AAAA"`), "list is wanted"},
		"data an object":          {request(`{}`), "list is wanted"},
		"data empty":              {request(`[]`), "a list of 0 where 64"},
		"one element short":       {request("[" + strings.Repeat("0,", 62) + "0]"), "a list of 63 where 64"},
		"one element more":        {request("[" + strings.Repeat("0,", 64) + "0]"), "more than the 64"},
		"a string among numbers":  {request("[" + strings.Repeat("0,", 63) + `"1"]`), "element 63 is a string"},
		"a bool among numbers":    {request("[true," + strings.Repeat("0,", 62) + "0]"), "element 0 is true or false"},
		"null among numbers":      {request("[null," + strings.Repeat("0,", 62) + "0]"), "element 0 is null"},
		"an object among numbers": {request("[{}," + strings.Repeat("0,", 62) + "0]"), "element 0 is an object"},
		"a list among numbers":    {request("[0,[0]," + strings.Repeat("0,", 61) + "0]"), "element 1 is a list"},
		"NaN":                     {request("[NaN," + strings.Repeat("0,", 62) + "0]"), "invalid character"},
		"Infinity":                {request("[Infinity," + strings.Repeat("0,", 62) + "0]"), "invalid character"},
		"too large for FP32":      {request("[1e39," + strings.Repeat("0,", 62) + "0]"), "does not fit FP32"},
		"too large for anything":  {request("[1e999," + strings.Repeat("0,", 62) + "0]"), "does not fit FP32"},
		"a leading zero":          {request("[01," + strings.Repeat("0,", 62) + "0]"), "invalid character"},
		"nested and one short":    {request(strings.Replace(nested, "[[[[", "[[[", 1)), ""},
		"nested too flat":         {request(strings.ReplaceAll(strings.ReplaceAll(nested, "[[[", "["), "]]]", "]")), ""},
		"a ragged list":           {request(strings.Replace(nested, "]],", "],[0]],", 1)), "more than the 8"},
		"numbers in a nested one": {request("[[" + strings.Repeat("0,", 63) + "0]]"), "a list of 8 is wanted where a number is"},
		"too deep":                {request(strings.Repeat("[", 20000)), ""},
		"unknown output":          {`{"inputs":[` + tensor + `],"outputs":[{"name":"other"}]}`, `no output "other"`},
		"an output twice":         {`{"inputs":[` + tensor + `],"outputs":[{"name":"scores"},{"name":"scores"}]}`, "twice"},
		"an output without name":  {`{"inputs":[` + tensor + `],"outputs":[{}]}`, "no output"},
		"outputs a list of text":  {`{"inputs":[` + tensor + `],"outputs":["scores"]}`, "object is wanted"},
		"bytes without a length":  {in(`{"name":"image","datatype":"FP32","shape":[1,8,8,1],"parameters":{"binary_data_size":256}}`), "0 bytes follow the JSON"},
		"bytes and data":          {in(`{"name":"image","datatype":"FP32","shape":[1,8,8,1],"parameters":{"binary_data_size":0},"data":[]}`), "one of them is wanted"},
		"a size that is text":     {in(`{"name":"image","datatype":"FP32","shape":[1,8,8,1],"parameters":{"binary_data_size":"256"}}`), "number of bytes is wanted"},
		"shared memory":           {in(`{"name":"image","datatype":"FP32","shape":[1,8,8,1],"parameters":{"shared_memory_region":"x","shared_memory_byte_size":256}}`), "not allowed"},
		"output to shared memory": {`{"inputs":[` + tensor + `],"outputs":[{"name":"scores","parameters":{"shared_memory_region":"x","shared_memory_byte_size":40}}]}`, "not allowed"},
		"classes below nothing":   {`{"inputs":[` + tensor + `],"outputs":[{"name":"scores","parameters":{"classification":-1}}]}`, "above 0"},
		"a timeout that is text":  {`{"parameters":{"timeout":"soon"},"inputs":[` + tensor + `]}`, "microseconds"},
		"a timeout in the past":   {`{"parameters":{"timeout":-1},"inputs":[` + tensor + `]}`, "microseconds"},
	} {
		for _, contentType := range []string{"application/json", "application/octet-stream"} {
			status, have := do(t, "POST", base+"/v2/models/digits/infer", contentType, c.body)
			text, _ := have["error"].(string)
			if status != http.StatusBadRequest || text == "" || !strings.Contains(text, c.says) || len(text) > 400 {
				t.Errorf("%s: %d %v, want 400 with %q", name, status, have, c.says)
			}
		}
	}
	for path, body := range map[string]string{"/v2/models/other/infer": good, "/v2/models/digits/versions/1.1.0/infer": good} {
		if status, have := do(t, "POST", base+path, "", body); status != http.StatusNotFound || have["error"] == nil {
			t.Errorf("%s: %d %v", path, status, have)
		}
	}
	long := strings.Replace(good, "[0", "["+strings.Repeat(" ", 80<<10)+"0", 1)
	if status, have := do(t, "POST", base+"/v2/models/digits/infer", "", long); status != http.StatusRequestEntityTooLarge || have["error"] == nil {
		t.Errorf("too long: %d %v", status, have)
	}
	if status, have := do(t, "POST", base+"/v2/models/digits/infer", "", good); status != http.StatusOK {
		t.Errorf("after all of that: %d %v", status, have)
	}
}

// TestUnixSocket speaks over a socket, chunked and without a length.
func TestUnixSocket(t *testing.T) {
	s, _ := infertest.Server(t)
	if err := s.Activate(t.Context(), infertest.Digits(t, "1.0.0")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "infer.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: oip.Handler(oip.Config{Engine: s, Version: "0"})}
	done := make(chan error, 1)
	go func() { done <- h.Serve(l) }()
	t.Cleanup(func() { h.Close(); <-done })
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	defer c.CloseIdleConnections()
	flat, _ := image(t, 0)
	resp, err := c.Post("http://dunlin/v2/models/digits/infer", "application/json", io.MultiReader(strings.NewReader(request(flat))))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
}

// TestNotANumber shows what a model's NaN looks like to a client.
func TestNotANumber(t *testing.T) {
	base, _ := serve(t, "1.0.0")
	status, have := do(t, "POST", base+"/v2/models/digits/infer", "", request("["+strings.Repeat("3.4e38,", 63)+"-3.4e38]"))
	if status != http.StatusOK {
		t.Fatal(status, have)
	}
	for _, x := range have["outputs"].([]any)[0].(map[string]any)["data"].([]any) {
		if f, ok := x.(float64); x != nil && (!ok || math.IsNaN(f)) {
			t.Errorf("%v in an answer", x)
		}
	}
	if b, err := json.Marshal(have); err != nil || bytes.Contains(b, []byte("NaN")) {
		t.Error(string(b), err)
	}
}

// TestDynamic: a contract that leaves a dimension open takes what the file has.
func TestDynamic(t *testing.T) {
	s, m := infertest.Server(t)
	slot := infertest.Digits(t, "1.0.0")
	slot.Contract.Inputs[0].Shape[0], slot.Contract.Outputs[0].Shape[0] = -1, -1
	if err := s.Activate(t.Context(), slot); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(oip.Handler(oip.Config{Engine: s, Version: "0"}))
	t.Cleanup(h.Close)
	flat, _ := image(t, 0)
	status, have := do(t, "POST", h.URL+"/v2/models/digits/infer", "", request(flat))
	if status != http.StatusOK || !cmp.Equal(have["outputs"].([]any)[0].(map[string]any)["shape"], []any{1.0, 10.0}) {
		t.Errorf("%d %v", status, have)
	}
	two := strings.Replace(request("["+strings.Repeat("0,", 127)+"0]"), "[1,8", "[2,8", 1)
	if status, have := do(t, "POST", h.URL+"/v2/models/digits/infer", "", two); status != http.StatusBadRequest {
		t.Errorf("%d %v", status, have)
	}
	if w := m.Take(true); len(w) != 1 || w[0].Requests != 1 {
		t.Errorf("observed %+v, want one request", w)
	}
}

// TestSwitchedUnderARequest: while a model changes between real and whole numbers,
// a request is answered by a version that it was checked against, and one that
// names its version by no other.
func TestSwitchedUnderARequest(t *testing.T) {
	s, _ := infertest.Server(t)
	slots := []infer.Slot{infertest.Digits(t, "1.1.0"), infertest.Digits(t, "1.1.1"), infertest.Digits(t, "1.0.0")}
	if err := s.Activate(t.Context(), slots[0]); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(oip.Handler(oip.Config{Engine: s, Version: "0"}))
	t.Cleanup(h.Close)
	flat, _ := image(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var answered, refused atomic.Int64
	for path, others := range map[string][]int{"": {http.StatusBadRequest}, "/versions/1.1.0": {http.StatusNotFound}} {
		for range 2 {
			wg.Go(func() {
				for ctx.Err() == nil {
					status, have := do(t, "POST", h.URL+"/v2/models/digits"+path+"/infer", "", request(flat))
					version, _ := have["model_version"].(string)
					switch {
					case status == http.StatusOK && version != "1.1.1" && (path == "" || version == "1.1.0"):
						answered.Add(1)
					case slices.Contains(others, status):
						refused.Add(1)
					default:
						t.Errorf("%q: %d %v", path, status, have)
					}
				}
			})
		}
	}
	for i := range 12 {
		if err := s.Activate(t.Context(), slots[(i+1)%3]); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	t.Logf("%d answered, %d refused", answered.Load(), refused.Load())
}
