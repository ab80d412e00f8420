package oip_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/agent/infer/oip"
)

const inferPath = "/v2/models/digits/infer"

// sent is an answer: its JSON, and the binary data behind it.
type sent struct {
	status int
	header http.Header
	json   map[string]any
	tail   []byte
}

// post sends a body with headers, given as name, value, name, value.
func post(t *testing.T, url string, body []byte, headers ...string) sent {
	t.Helper()
	req, err := http.NewRequest("POST", url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := sent{status: resp.StatusCode, header: resp.Header}
	if n := resp.Header.Get("Inference-Header-Content-Length"); n != "" {
		end, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		b, out.tail = b[:end], b[end:]
	}
	if len(b) > 0 && resp.Header.Get("Content-Encoding") == "" {
		if err := json.Unmarshal(b, &out.json); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
	} else {
		out.tail = b
	}
	return out
}

// raw is the held-out image i as the binary extension sends it.
func raw(t testing.TB, i int) []byte {
	return infertest.Array(t, filepath.Join(infertest.Root(t), "testbed", "models", "digits", "test.npz"), "images").Row(i)
}

// TestBinary asks the same in every mix of JSON and bytes; the scores are the same,
// bit for bit.
func TestBinary(t *testing.T) {
	base, _ := serve(t, "1.1.0")
	flat, _ := image(t, 3)
	want := post(t, base+inferPath, []byte(request(flat)))
	scores := want.json["outputs"].([]any)[0].(map[string]any)["data"].([]any)
	image := raw(t, 3)
	head := func(parameters, outputs string) []byte {
		return []byte(`{"id":"7"` + parameters + `,"inputs":[{"name":"image","datatype":"FP32","shape":[1,8,8,1],"parameters":{"binary_data_size":` + fmt.Sprint(len(image)) + `}}]` + outputs + `}`)
	}
	for name, c := range map[string]struct {
		head   []byte
		binary bool
	}{
		"bytes in":                       {head("", ""), false},
		"bytes in, all out":              {head(`,"parameters":{"binary_data_output":true}`, ""), true},
		"bytes in, one out":              {head("", `,"outputs":[{"name":"scores","parameters":{"binary_data":true}}]`), true},
		"one out is not, though all are": {head(`,"parameters":{"binary_data_output":true}`, `,"outputs":[{"name":"scores","parameters":{"binary_data":false}}]`), false},
	} {
		t.Run(name, func(t *testing.T) {
			have := post(t, base+inferPath, append(slices.Clone(c.head), image...), "Inference-Header-Content-Length", strconv.Itoa(len(c.head)))
			if have.status != http.StatusOK || have.json["id"] != "7" {
				t.Fatalf("%d %v", have.status, have.json)
			}
			out := have.json["outputs"].([]any)[0].(map[string]any)
			if !c.binary {
				if d := cmp.Diff(scores, out["data"]); d != "" || have.tail != nil {
					t.Error(d, have.tail)
				}
				return
			}
			if d := cmp.Diff(map[string]any{"binary_data_size": 40.0}, out["parameters"]); d != "" || out["data"] != nil || len(have.tail) != 40 {
				t.Fatalf("%s %v, %d bytes", d, out, len(have.tail))
			}
			for i, s := range scores {
				if f := math.Float32frombits(binary.LittleEndian.Uint32(have.tail[4*i:])); f != float32(s.(float64)) {
					t.Errorf("score %d: %v, want %v", i, f, s)
				}
			}
		})
	}
	for name, c := range map[string]struct{ head, tail, length, says string }{
		"too few bytes":          {string(head("", "")), string(image[:255]), "", "255 bytes follow the JSON"},
		"too many bytes":         {string(head("", "")), string(image) + "x", "", "1 bytes follow what the inputs announce"},
		"not the tensor's bytes": {strings.Replace(string(head("", "")), ":256}", ":252}", 1), string(image[:252]), "", "252 bytes of data, 256 are wanted"},
		"below nothing":          {strings.Replace(string(head("", "")), ":256}", ":-5}", 1), "", "", "data is missing"},
		"length of nothing":      {string(head("", "")), string(image), "0", "ends too early"},
		"length beyond the body": {string(head("", "")), string(image), "100000", "in a body of"},
		"length no number":       {string(head("", "")), string(image), "-1", "in a body of"},
		"length too short":       {string(head("", "")), string(image), "20", ""},
		"bytes nobody announced": {request(flat), string(image), "", "256 bytes follow what the inputs announce"},
	} {
		if c.length == "" {
			c.length = strconv.Itoa(len(c.head))
		}
		have := post(t, base+inferPath, []byte(c.head+c.tail), "Inference-Header-Content-Length", c.length)
		if text, _ := have.json["error"].(string); have.status != http.StatusBadRequest || !strings.Contains(text, c.says) || text == "" {
			t.Errorf("%s: %d %v, want %q", name, have.status, have.json, c.says)
		}
	}
}

// TestClassification asks for the highest classes, as text and as bytes.
func TestClassification(t *testing.T) {
	engine, _ := infertest.Server(t)
	slot := infertest.Digits(t, "1.1.0")
	slot.Contract.Labels = "labels.txt" // each digit is its own name
	if err := engine.Activate(t.Context(), slot); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(oip.Handler(oip.Config{Engine: engine, Version: "0"}))
	t.Cleanup(h.Close)
	base := h.URL
	flat, _ := image(t, 0)
	ask := func(k int, parameters string) sent {
		body := strings.TrimSuffix(request(flat), "}") + fmt.Sprintf(`,"outputs":[{"name":"scores","parameters":{"classification":%d%s}}]}`, k, parameters)
		return post(t, base+inferPath, []byte(body))
	}
	for k, n := range map[int]int{1: 1, 3: 3, 10: 10, 99: 10} {
		out := ask(k, "").json["outputs"].([]any)[0].(map[string]any)
		if d := cmp.Diff([]any{1.0, float64(n)}, out["shape"]); d != "" || out["datatype"] != "BYTES" || len(out["data"].([]any)) != n {
			t.Fatalf("%d classes: %v", k, out)
		}
		last := math.Inf(1)
		for _, x := range out["data"].([]any) {
			part := strings.Split(x.(string), ":")
			score, err := strconv.ParseFloat(part[0], 64)
			if err != nil || score > last || len(part) != 3 || part[2] != part[1] {
				t.Errorf("%q after %v", x, last)
			}
			last = score
		}
	}
	want := ask(2, "").json["outputs"].([]any)[0].(map[string]any)["data"].([]any)
	tail := ask(2, `,"binary_data":true`).tail
	for _, w := range want {
		n := binary.LittleEndian.Uint32(tail)
		if string(tail[4:4+n]) != w {
			t.Errorf("%q, want %q", tail[4:4+n], w)
		}
		tail = tail[4+n:]
	}
	if len(tail) > 0 {
		t.Errorf("%q is left", tail)
	}
}

// TestPacked sends packed bodies and takes packed answers. What unpacks to more than
// the model needs is refused without unpacking it all.
func TestPacked(t *testing.T) {
	base, _ := serve(t, "1.1.0")
	flat, _ := image(t, 0)
	pack := map[string]func(b []byte) []byte{
		"gzip": func(b []byte) []byte {
			var o bytes.Buffer
			w := gzip.NewWriter(&o)
			w.Write(b)
			w.Close()
			return o.Bytes()
		},
		"deflate": func(b []byte) []byte {
			var o bytes.Buffer
			w := zlib.NewWriter(&o)
			w.Write(b)
			w.Close()
			return o.Bytes()
		},
	}
	for encoding, f := range pack {
		good := f([]byte(request(flat)))
		if have := post(t, base+inferPath, good, "Content-Encoding", encoding); have.status != http.StatusOK {
			t.Errorf("%s: %d %v", encoding, have.status, have.json)
		}
		if have := post(t, base+inferPath, good[:len(good)/2], "Content-Encoding", encoding); have.status != http.StatusBadRequest {
			t.Errorf("%s, cut: %d %v", encoding, have.status, have.json)
		}
		bomb := f(bytes.Repeat([]byte(" "), 32<<20))
		if have := post(t, base+inferPath, bomb, "Content-Encoding", encoding); have.status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s bomb of %d bytes: %d %v", encoding, len(bomb), have.status, have.json)
		}
	}
	if have := post(t, base+inferPath, []byte(request(flat)), "Content-Encoding", "br"); have.status != http.StatusUnsupportedMediaType {
		t.Errorf("brotli: %d %v", have.status, have.json)
	}
	// A long id makes the answer worth packing.
	body := strings.Replace(request(flat), "{", `{"id":"`+strings.Repeat("long ", 2000)+`",`, 1)
	for accept, want := range map[string]string{"gzip": "gzip", "deflate": "deflate", "br, gzip": "gzip", "br": "", "": ""} {
		have := post(t, base+inferPath, []byte(body), "Accept-Encoding", accept)
		if got := have.header.Get("Content-Encoding"); have.status != http.StatusOK || got != want || want != "" && len(have.tail) > 1000 {
			t.Errorf("accept %q: %q, %d bytes", accept, got, len(have.tail))
		}
	}
}

// TestNotRead sends a body that says how long it is: too long, it is refused before
// it is read.
func TestNotRead(t *testing.T) {
	base, _ := serve(t, "1.1.0")
	req, err := http.NewRequest("POST", base+inferPath, io.MultiReader(strings.NewReader("{"), never{t}))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 1 << 40
	req.Header.Set("Expect", "100-continue")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Error(resp.Status)
	}
}

// never is a body that nobody reads to its end.
type never struct{ t *testing.T }

func (n never) Read([]byte) (int, error) {
	n.t.Error("the body was asked for")
	return 0, io.ErrUnexpectedEOF
}

// sum of the parts that a good request's time has.
func sum(of map[string]any) (ns float64) {
	for _, part := range []string{"queue", "compute_input", "compute_infer", "compute_output"} {
		d := of[part].(map[string]any)
		if d["count"] != 3.0 || d["ns"].(float64) <= 0 {
			return -1
		}
		ns += d["ns"].(float64)
	}
	return ns
}

// TestTellsOfItself reads statistics, index and configuration.
func TestTellsOfItself(t *testing.T) {
	base, _ := serve(t, "1.1.0")
	flat, _ := image(t, 0)
	for range 3 {
		post(t, base+inferPath, []byte(request(flat)))
	}
	post(t, base+inferPath, []byte(strings.Replace(request(flat), "{", `{"parameters":{"timeout":1},`, 1))) // a microsecond
	for _, path := range []string{"/v2/models/stats", "/v2/models/digits/stats", "/v2/models/digits/versions/1.1.0/stats"} {
		_, have := do(t, "GET", base+path, "", "")
		m := have["model_stats"].([]any)[0].(map[string]any)
		of := m["inference_stats"].(map[string]any)
		good, bad := of["success"].(map[string]any), of["fail"].(map[string]any)
		if m["name"] != "digits" || m["version"] != "1.1.0" || m["inference_count"] != 3.0 || good["count"] != 3.0 || sum(of) != good["ns"] || good["ns"].(float64) < 1000 || bad["count"] != 1.0 || m["last_inference"].(float64) < 1e12 {
			t.Errorf("%s: %v", path, have)
		}
	}
	if status, _ := do(t, "GET", base+"/v2/models/other/stats", "", ""); status != http.StatusNotFound {
		t.Error(status)
	}
	for body, want := range map[string]int{"": 200, "{}": 200, `{"ready":true}`: 200, `{"ready":1}`: 400, `[]`: 400, strings.Repeat(" ", 9000): 413} {
		resp, err := http.Post(base+"/v2/repository/index", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || want == 200 && string(b) != `[{"name":"digits","version":"1.1.0","state":"READY","reason":""}]` {
			t.Errorf("%.20s: %d %s", body, resp.StatusCode, b)
		}
	}
	if have := post(t, base+"/v2/repository/models/digits/unload", nil); have.status != http.StatusBadRequest {
		t.Error(have)
	}
	_, have := do(t, "GET", base+"/v2/models/digits/config", "", "")
	want := []any{map[string]any{"name": "image", "data_type": "TYPE_FP32", "dims": []any{1.0, 8.0, 8.0, 1.0}}}
	if d := cmp.Diff(want, have["input"]); d != "" {
		t.Error(d)
	}
}

// TestSharedMemory gives input and output in a region, and tries what a client must
// not get.
func TestSharedMemory(t *testing.T) {
	s, _ := infertest.Server(t)
	if err := s.Activate(t.Context(), infertest.Digits(t, "1.1.0")); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(oip.Handler(oip.Config{Engine: s, Version: "0", SharedMemory: true}))
	t.Cleanup(h.Close)
	f, err := os.CreateTemp("/dev/shm", "dunlin-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); os.Remove(f.Name()) })
	key := "/" + filepath.Base(f.Name())
	input := raw(t, 0)
	if err := os.WriteFile(f.Name(), append(make([]byte, 64), append(input, make([]byte, 64)...)...), 0o600); err != nil {
		t.Fatal(err)
	}
	const base = "/v2/systemsharedmemory"
	register := func(name, body string) sent {
		return post(t, h.URL+base+"/region/"+name+"/register", []byte(body))
	}
	for name, body := range map[string]string{
		"no key":      `{"byte_size":1}`,
		"no size":     `{"key":"` + key + `"}`,
		"too long":    `{"key":"` + key + `","byte_size":385}`,
		"behind it":   `{"key":"` + key + `","offset":385,"byte_size":1}`,
		"wraps":       `{"key":"` + key + `","offset":9223372036854775807,"byte_size":9223372036854775807}`,
		"negative":    `{"key":"` + key + `","offset":-1,"byte_size":1}`,
		"a path":      `{"key":"/../../etc/passwd","byte_size":1}`,
		"up":          `{"key":"..","byte_size":1}`,
		"not there":   `{"key":"/dunlin-not-there","byte_size":1}`,
		"unknown key": `{"key":"` + key + `","byte_size":1,"path":"x"}`,
		"no JSON":     `key`,
	} {
		if have := register("r", body); have.status != http.StatusBadRequest || have.json["error"] == nil {
			t.Errorf("%s: %d %v", name, have.status, have.json)
		}
	}
	link := f.Name() + "-link"
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(link)
	if have := register("r", `{"key":"/`+filepath.Base(link)+`","byte_size":1}`); have.status != http.StatusBadRequest {
		t.Errorf("a link: %v", have)
	}
	whole := `{"key":"` + key + `","offset":64,"byte_size":320}`
	if have := register("r", whole); have.status != http.StatusOK {
		t.Fatal(have)
	}
	if have := register("r", whole); have.status != http.StatusBadRequest {
		t.Error("registered twice", have)
	}
	ask := func(in, out string) sent {
		return post(t, h.URL+inferPath, []byte(`{"inputs":[{"name":"image","datatype":"FP32","shape":[1,8,8,1],"parameters":{"shared_memory_region":"r",`+in+`}}],"outputs":[{"name":"scores","parameters":{"shared_memory_region":"r",`+out+`}}]}`))
	}
	const here, there = `"shared_memory_byte_size":256`, `"shared_memory_byte_size":40,"shared_memory_offset":256`
	have := ask(here, there)
	if have.status != http.StatusOK || have.json["outputs"].([]any)[0].(map[string]any)["data"] != nil {
		t.Fatal(have)
	}
	flat, _ := image(t, 0)
	want := post(t, h.URL+inferPath, []byte(request(flat))).json["outputs"].([]any)[0].(map[string]any)["data"].([]any)
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range want {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(b[320+4*i:])); got != float32(s.(float64)) {
			t.Errorf("score %d: %v, want %v", i, got, s)
		}
	}
	for name, c := range map[string][2]string{
		"input behind the region": {`"shared_memory_byte_size":256,"shared_memory_offset":65`, there},
		"input too short":         {`"shared_memory_byte_size":252`, there},
		"input far too long":      {`"shared_memory_byte_size":9223372036854775807`, there},
		"output does not fit":     {here, `"shared_memory_byte_size":36`},
		"output before it":        {here, `"shared_memory_byte_size":40,"shared_memory_offset":-40`},
	} {
		if have := ask(c[0], c[1]); have.status != http.StatusBadRequest || have.json["error"] == nil {
			t.Errorf("%s: %d %v", name, have.status, have.json)
		}
	}
	if err := os.Truncate(f.Name(), 100); err != nil { // under our feet
		t.Fatal(err)
	}
	if have := ask(here, there); have.status != http.StatusBadRequest {
		t.Errorf("cut short: %d %v", have.status, have.json)
	}
	if have := post(t, h.URL+base+"/unregister", nil); have.status != http.StatusOK {
		t.Error(have)
	}
	if have := ask(here, there); have.status != http.StatusBadRequest {
		t.Errorf("unregistered: %d %v", have.status, have.json)
	}
}
