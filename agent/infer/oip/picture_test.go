package oip_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	goimage "image"
	"image/color"
	"image/jpeg"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/agent/infer/named"
	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/agent/infer/oip/oippb"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/bundle/meaning"
	"github.com/dunlin-edge/dunlin/shared/picture"
)

// echo is an engine whose model answers with its inputs, so that what became of a
// request can be read.
type echo struct{ contract *bundle.Contract }

func (e echo) slot() infer.Slot {
	return infer.Slot{Key: observe.Key{Model: "echo"}, Version: "1.0.0", Contract: e.contract}
}

func (e echo) Models() []string                       { return []string{"echo"} }
func (e echo) Ready(string) bool                      { return true }
func (e echo) Active(model string) (infer.Slot, bool) { return e.slot(), model == "echo" }

func (e echo) Infer(_ context.Context, _ string, inputs [][]byte) (infer.Answer, error) {
	return infer.Answer{Outputs: inputs, Slot: e.slot()}, nil
}

const echoPath = "/v2/models/echo/infer"

// echoed serves tensors that come back as outputs of the same names.
func echoed(t testing.TB, tensors ...bundle.Tensor) (h *httptest.Server, c *bundle.Contract) {
	c = &bundle.Contract{Inputs: tensors}
	for _, x := range tensors {
		x.Meaning = nil
		c.Outputs = append(c.Outputs, x)
	}
	return start(t, oip.Config{Engine: echo{c}, SharedMemory: true}), c
}

// start serves HTTP and gRPC.
func start(t testing.TB, c oip.Config) *httptest.Server {
	h := httptest.NewUnstartedServer(oip.Handler(c))
	h.Config.Protocols = new(http.Protocols)
	h.Config.Protocols.SetHTTP1(true)
	h.Config.Protocols.SetUnencryptedHTTP2(true)
	h.Start()
	t.Cleanup(h.Close)
	return h
}

// letterboxed is the input of many detectors.
func letterboxed(dtype string) bundle.Tensor {
	return bundle.Tensor{Name: "image", DType: dtype, Shape: []int{-1, 24, 32, 3}, Meaning: &bundle.Meaning{
		Kind: "image", Colour: "bgr", Ranges: [][2]float64{{-1, 1}, {0, 1}, {-2, 2}}, Fit: &meaning.Fit{How: "letterbox", Fill: 114}}}
}

// photo is a picture that has something everywhere, as JPEG and as PNG.
func photo(t testing.TB, width, height int) (jpg, pngs []byte) {
	m := goimage.NewRGBA(goimage.Rect(0, 0, width, height))
	for i := range width * height {
		m.Set(i%width, i/width, color.RGBA{byte(i), byte(i / 7), byte(i * 3), 255})
	}
	var a, b bytes.Buffer
	if err := jpeg.Encode(&a, m, nil); err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return a.Bytes(), b.Bytes()
}

// element is how BYTES come as bytes.
func element(b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// binaryRequest writes a body of one input whose bytes follow, and asks for bytes.
func binaryRequest(input string, parameters string, tail []byte) (body []byte, length string) {
	head := fmt.Sprintf(`{"parameters":{"binary_data_output":true},"inputs":[{"name":"image",%s,"parameters":{"binary_data_size":%d%s}}]}`, input, len(tail), parameters)
	return append([]byte(head), tail...), strconv.Itoa(len(head))
}

const aFile = `"datatype":"BYTES","shape":[1]`

// TestPictures sends the same picture in every way; what reaches the model is the same
// as the tensor that shared/picture makes of it, sent as a tensor.
func TestPictures(t *testing.T) {
	for _, dtype := range []string{"FP32", "INT8"} {
		t.Run(dtype, func(t *testing.T) {
			x := letterboxed(dtype)
			if dtype == "INT8" {
				x.Quant = &bundle.Quant{Scale: []float32{1. / 64}, Zero: []int64{-3}}
			}
			h, c := echoed(t, x)
			rule, err := named.Rule(&c.Inputs[0])
			if err != nil {
				t.Fatal(err)
			}
			jpg, pngs := photo(t, 50, 31)
			for name, file := range map[string][]byte{"jpeg": jpg, "png": pngs} {
				p, err := picture.Decode(file, 0)
				if err != nil {
					t.Fatal(err)
				}
				want := make([]byte, rule.Bytes())
				if _, err := rule.Tensor(want, p); err != nil {
					t.Fatal(err)
				}
				everyWay(t, h, name, file, dtype, want)
			}
		})
	}
}

func everyWay(t *testing.T, h *httptest.Server, kind string, file []byte, dtype string, want []byte) {
	t.Helper()
	same := func(way string, have []byte) {
		t.Helper()
		if !bytes.Equal(have, want) {
			t.Errorf("%s by %s: %d bytes, which are not the %d of the tensor", kind, way, len(have), len(want))
		}
	}
	body, length := binaryRequest(`"datatype":"`+dtype+`","shape":[1,24,32,3]`, "", want)
	same("tensor", post(t, h.URL+echoPath, body, "Inference-Header-Content-Length", length).tail)

	body, length = binaryRequest(aFile, "", element(file))
	same("bytes", post(t, h.URL+echoPath, body, "Inference-Header-Content-Length", length).tail)

	text := base64.StdEncoding.EncodeToString(file)
	same("JSON", post(t, h.URL+echoPath, []byte(`{"parameters":{"binary_data_output":true},"inputs":[{"name":"image",`+aFile+`,"parameters":{"content_type":"base64"},"data":["`+text+`"]}]}`)).tail)

	memory, key := shared(t, element(file))
	if have := post(t, h.URL+"/v2/systemsharedmemory/region/"+kind+"/register", []byte(`{"key":"`+key+`","byte_size":`+strconv.Itoa(memory)+`}`)); have.status != http.StatusOK {
		t.Fatal(have)
	}
	same("shared memory", post(t, h.URL+echoPath, []byte(`{"parameters":{"binary_data_output":true},"inputs":[{"name":"image",`+aFile+`,"parameters":{"shared_memory_region":"`+kind+`","shared_memory_byte_size":`+strconv.Itoa(memory)+`}}]}`)).tail)

	var answer struct {
		Outputs []struct{ Data json.RawMessage }
	}
	have := post(t, h.URL+echoPath, file, "Content-Type", "image/"+kind)
	b, _ := json.Marshal(have.json)
	if err := json.Unmarshal(b, &answer); err != nil || len(answer.Outputs) != 1 {
		t.Fatalf("a body that is a file: %d %s", have.status, b)
	}
	var numbers []float32
	if err := json.Unmarshal(answer.Outputs[0].Data, &numbers); err != nil {
		t.Fatal(err)
	}
	for i, v := range bundle.Values(dtype, want) {
		if len(numbers) <= i || numbers[i] != float32(v) {
			t.Fatalf("%s as a body: %d numbers, and number %d is not %v", kind, len(numbers), i, v)
		}
	}

	in := &oippb.ModelInferRequest_InferInputTensor{Name: "image", Datatype: "BYTES", Shape: []int64{1, 1}}
	raw := func(m *oippb.ModelInferRequest) []byte {
		t.Helper()
		m.ModelName = "echo"
		r, err := messages(h).CallUnary(t.Context(), connect.NewRequest(m))
		if err != nil {
			t.Fatal(err)
		}
		return r.Msg.RawOutputContents[0]
	}
	same("gRPC, raw", raw(&oippb.ModelInferRequest{Inputs: []*oippb.ModelInferRequest_InferInputTensor{in}, RawInputContents: [][]byte{element(file)}}))
	in.Contents = &oippb.InferTensorContents{BytesContents: [][]byte{file}}
	same("gRPC, contents", raw(&oippb.ModelInferRequest{Inputs: []*oippb.ModelInferRequest_InferInputTensor{in}}))
}

// messages is a gRPC client.
func messages(h *httptest.Server) *connect.Client[oippb.ModelInferRequest, oippb.ModelInferResponse] {
	two := new(http.Protocols)
	two.SetUnencryptedHTTP2(true)
	c := &http.Client{Transport: &http.Transport{Protocols: two, DisableKeepAlives: true}}
	return connect.NewClient[oippb.ModelInferRequest, oippb.ModelInferResponse](c, h.URL+"/inference.GRPCInferenceService/ModelInfer", connect.WithGRPC())
}

// shared puts bytes into shared memory and returns their number and its key.
func shared(t *testing.T, b []byte) (size int, key string) {
	t.Helper()
	f, err := os.CreateTemp("/dev/shm", "dunlin-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	f.Close()
	return len(b), "/" + filepath.Base(f.Name())
}

// TestFrames sends raw frames over HTTP, from shared memory and over gRPC.
func TestFrames(t *testing.T) {
	h, c := echoed(t, letterboxed("FP32"))
	rule, err := named.Rule(&c.Inputs[0])
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 160*60)
	for i := range data {
		data[i] = byte(i * i / 5)
	}
	for format, f := range map[string]*picture.Frame{
		"rgb":       {Width: 50, Height: 31, Stride: 160, Data: data[:160*31]},
		"gray":      {Width: 50, Height: 31, Data: data[:50*31]},
		"nv12":      {Width: 50, Height: 32, Stride: 64, Data: data[:64*48]},
		"nv12-full": {Width: 49, Height: 31, Stride: 64, Data: data[:64*47]},
	} {
		f.Format = format
		want := make([]byte, rule.Bytes())
		if _, err := rule.Frame(want, f); err != nil {
			t.Fatal(err)
		}
		says := fmt.Sprintf(`,"format":%q,"width":%d,"height":%d,"stride":%d`, format, f.Width, f.Height, f.Stride)
		uint8s := fmt.Sprintf(`"datatype":"UINT8","shape":[%d]`, len(f.Data))
		body, length := binaryRequest(uint8s, says, f.Data)
		if have := post(t, h.URL+echoPath, body, "Inference-Header-Content-Length", length); !bytes.Equal(have.tail, want) {
			t.Errorf("%s: %d %v", format, have.status, have.json)
		}
		body, length = binaryRequest(aFile, says, element(f.Data))
		if have := post(t, h.URL+echoPath, body, "Inference-Header-Content-Length", length); !bytes.Equal(have.tail, want) {
			t.Errorf("%s as BYTES: %d %v", format, have.status, have.json)
		}
		size, key := shared(t, f.Data)
		post(t, h.URL+"/v2/systemsharedmemory/region/"+format+"/register", []byte(`{"key":"`+key+`","byte_size":`+strconv.Itoa(size)+`}`))
		have := post(t, h.URL+echoPath, []byte(`{"parameters":{"binary_data_output":true},"inputs":[{"name":"image",`+uint8s+`,"parameters":{"shared_memory_region":"`+format+`","shared_memory_byte_size":`+strconv.Itoa(size)+says+`}}]}`))
		if !bytes.Equal(have.tail, want) {
			t.Errorf("%s from shared memory: %d %v", format, have.status, have.json)
		}
		number := func(n int) *oippb.InferParameter {
			return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_Int64Param{Int64Param: int64(n)}}
		}
		in := &oippb.ModelInferRequest_InferInputTensor{Name: "image", Datatype: "UINT8", Shape: []int64{int64(len(f.Data))}, Parameters: map[string]*oippb.InferParameter{
			"format": {ParameterChoice: &oippb.InferParameter_StringParam{StringParam: format}}, "width": number(f.Width), "height": number(f.Height), "stride": number(f.Stride),
		}}
		r, err := messages(h).CallUnary(t.Context(), connect.NewRequest(&oippb.ModelInferRequest{ModelName: "echo", Inputs: []*oippb.ModelInferRequest_InferInputTensor{in}, RawInputContents: [][]byte{f.Data}}))
		if err != nil || !bytes.Equal(r.Msg.RawOutputContents[0], want) {
			t.Errorf("%s over gRPC: %v", format, err)
		}
	}
}

// TestPicturesRefused: what is wrong gets 400 or 413 and a sentence, never 500.
func TestPicturesRefused(t *testing.T) {
	h, _ := echoed(t, letterboxed("FP32"))
	plain, _ := echoed(t, bundle.Tensor{Name: "image", DType: "FP32", Shape: []int{1, 2}})
	jpg, pngs := photo(t, 50, 31)
	huge := bytes.Clone(pngs)
	binary.BigEndian.PutUint32(huge[16:], 1<<15) // width; the checksum of the header is wrong as well
	bomb := pngOf(1<<15, 1<<15)
	cmyk := bytes.Clone(jpg)
	for name, c := range map[string]struct {
		base, input, parameters string
		tail                    []byte
		status                  int
		says                    string
	}{
		"no picture":             {h.URL, aFile, "", element([]byte("GIF89a")), 400, "neither JPEG nor PNG"},
		"nothing":                {h.URL, aFile, "", element(nil), 400, "neither JPEG nor PNG"},
		"no length":              {h.URL, aFile, "", jpg, 400, "one element behind its length"},
		"length too long":        {h.URL, aFile, "", append(binary.LittleEndian.AppendUint32(nil, uint32(len(jpg)+1)), jpg...), 400, "one element behind its length"},
		"length too short":       {h.URL, aFile, "", append(binary.LittleEndian.AppendUint32(nil, uint32(len(jpg)-1)), jpg...), 400, "one element behind its length"},
		"two bytes":              {h.URL, aFile, "", []byte{0, 0}, 400, "one element behind its length"},
		"cut JPEG":               {h.URL, aFile, "", element(cmyk[:len(cmyk)/2]), 400, "the picture"},
		"cut PNG":                {h.URL, aFile, "", element(pngs[:len(pngs)/2]), 400, "the picture"},
		"header changed":         {h.URL, aFile, "", element(huge), 400, "header"},
		"too many pixels":        {h.URL, aFile, "", element(bomb), 413, "32768 by 32768 pixels"},
		"two pictures":           {h.URL, `"datatype":"BYTES","shape":[2]`, "", element(jpg), 400, "one picture or sound, [1], is wanted"},
		"immense shape":          {h.URL, `"datatype":"BYTES","shape":[999999999,999999999]`, "", element(jpg), 400, "is wanted"},
		"negative shape":         {h.URL, `"datatype":"BYTES","shape":[-1]`, "", element(jpg), 400, "is wanted"},
		"unknown format":         {h.URL, `"datatype":"UINT8","shape":[3]`, `,"format":"yuyv","width":1,"height":1`, []byte{1, 2, 3}, 400, "nv12-full are known"},
		"frame without size":     {h.URL, `"datatype":"UINT8","shape":[3]`, `,"format":"rgb"`, []byte{1, 2, 3}, 413, "0 by 0 pixels"},
		"frame too short":        {h.URL, `"datatype":"UINT8","shape":[3]`, `,"format":"rgb","width":2,"height":1`, []byte{1, 2, 3}, 400, "take 6"},
		"frame, other shape":     {h.URL, `"datatype":"UINT8","shape":[4]`, `,"format":"rgb","width":1,"height":1`, []byte{1, 2, 3}, 400, "4 are wanted"},
		"frame, negative":        {h.URL, `"datatype":"UINT8","shape":[3]`, `,"format":"rgb","width":-1,"height":1`, []byte{1, 2, 3}, 413, "-1 by 1 pixels"},
		"frame, stride":          {h.URL, `"datatype":"UINT8","shape":[3]`, `,"format":"rgb","width":1,"height":1,"stride":-3`, []byte{1, 2, 3}, 400, "rows of -3 bytes"},
		"frame of floats":        {h.URL, `"datatype":"FP32","shape":[1]`, `,"format":"rgb","width":1,"height":1`, []byte{1, 2, 3, 4}, 400, "a frame is BYTES or UINT8"},
		"format is a number":     {h.URL, `"datatype":"UINT8","shape":[3]`, `,"format":7`, []byte{1, 2, 3}, 400, "a string is wanted"},
		"a sound":                {h.URL, aFile, "", element([]byte("RIFF\x00\x00\x00\x00WAVE")), 400, "neither JPEG nor PNG"},
		"no image":               {plain.URL, aFile, "", element(jpg), 400, "does not say that it is an image: FP32 [1 2] is wanted"},
		"other input":            {h.URL, `"datatype":"BYTES","shape":[1]},{"name":"other","datatype":"BYTES","shape":[0],"data":[]`, "", element(jpg), 400, ""},
		"names of what has none": {h.URL, aFile, `}}],"parameters":{"results":"named"},"x":[{"y":{"z":0`, element(jpg), 400, ""},
	} {
		body, length := binaryRequest(c.input, c.parameters, c.tail)
		have := post(t, c.base+echoPath, body, "Inference-Header-Content-Length", length)
		if text, _ := have.json["error"].(string); have.status != c.status || !strings.Contains(text, c.says) || text == "" {
			t.Errorf("%s: %d %v, want %d %q", name, have.status, have.json, c.status, c.says)
		}
	}
	for name, c := range map[string]struct {
		body, contentType string
		status            int
		says              string
	}{
		"JSON without base64":    {`{"inputs":[{"name":"image",` + aFile + `,"data":["x"]}]}`, "", 400, "content_type base64"},
		"no base64":              {`{"inputs":[{"name":"image",` + aFile + `,"data":["%"],"parameters":{"content_type":"base64"}}]}`, "", 400, "data is no base64"},
		"number":                 {`{"inputs":[{"name":"image",` + aFile + `,"data":[1],"parameters":{"content_type":"base64"}}]}`, "", 400, "a list of one string"},
		"no data":                {`{"inputs":[{"name":"image",` + aFile + `}]}`, "", 400, "data is missing"},
		"names of what has none": {`{"parameters":{"results":"named"},"inputs":[{"name":"image",` + aFile + `}]}`, "", 400, "only tensors can be given"},
		"names otherwise":        {`{"parameters":{"results":"all"},"inputs":[]}`, "", 400, "named is wanted"},
		"top below zero":         {`{"parameters":{"results":"named","top":-1},"inputs":[]}`, "", 400, "from 0 on is wanted"},
		"a file for nothing":     {string(element(jpg)), "image/jpeg", 400, "neither JPEG nor PNG"},
		"a sound for an image":   {"RIFF\x00\x00\x00\x00WAVE", "audio/wav", 400, "the contract says of no input"},
	} {
		have := post(t, h.URL+echoPath, []byte(c.body), "Content-Type", c.contentType)
		if text, _ := have.json["error"].(string); have.status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %v, want %d %q", name, have.status, have.json, c.status, c.says)
		}
	}
}

// TestPictureRoom: a model that takes pictures reads bodies as long as one, another none.
func TestPictureRoom(t *testing.T) {
	x := letterboxed("FP32")
	x.Shape[0] = 1
	h, _ := echoed(t, x)
	for size, want := range map[int64]int{30 << 20: http.StatusBadRequest, 40 << 20: http.StatusRequestEntityTooLarge} {
		r := httptest.NewRequest("POST", echoPath, bytes.NewReader(make([]byte, size)))
		r.Header.Set("Content-Type", "image/jpeg")
		w := httptest.NewRecorder()
		if h.Config.Handler.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%d bytes: %d %s", size, w.Code, w.Body)
		}
	}
}

// pngOf is the beginning of a gray PNG of that size.
func pngOf(width, height uint32) []byte {
	head := []byte("IHDR")
	head = binary.BigEndian.AppendUint32(head, width)
	head = binary.BigEndian.AppendUint32(head, height)
	head = append(head, 8, 0, 0, 0, 0)
	b := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), head...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(head))
}

// TestNamed asks the detector about its scene: a red and a blue spot, of which the blue
// one is darker. Boxes come in the pixels of the picture, though it was letterboxed.
func TestNamed(t *testing.T) {
	engine, monitor := infertest.Server(t)
	dir := filepath.Join(infertest.Root(t), "testbed", "models", "spots")
	slot := infertest.Model(t, dir, "model.tflite")
	slot.Contract.Labels = "labels.txt"
	slot.Contract.Inputs[0].Meaning = &bundle.Meaning{Kind: "image", Colour: "rgb", Range: [2]float64{0, 1}, Fit: &meaning.Fit{How: "letterbox"}}
	slot.Contract.Outputs[0].Meaning = &bundle.Meaning{Kind: "boxes", Boxes: &meaning.Boxes{Layout: "xyxy", IoU: 0.5, Least: 0.5}}
	if err := engine.Activate(t.Context(), slot); err != nil {
		t.Fatal(err)
	}
	h := start(t, oip.Config{Engine: engine})
	scene, err := os.ReadFile(filepath.Join(dir, "scene.png"))
	if err != nil {
		t.Fatal(err)
	}
	box := func(label string, index, score float64, at ...any) map[string]any {
		return map[string]any{"output": "boxes", "label": label, "index": index, "score": score, "box": at}
	}
	want := map[string]any{"results": map[string]any{
		"picture": map[string]any{"width": 128.0, "height": 64.0},
		"boxes":   []any{box("red", 0, 1, 32.0, 0.0, 64.0, 32.0), box("blue", 2, 0.8, 96.0, 32.0, 128.0, 64.0)},
	}}
	have := post(t, h.URL+inferPath, scene, "Content-Type", "image/png; q=1")
	if d := cmp.Diff(any(want), have.json["parameters"]); d != "" || len(have.json["outputs"].([]any)) != 0 {
		t.Error(d, have.json["error"])
	}
	r, err := messages(h).CallUnary(t.Context(), connect.NewRequest(&oippb.ModelInferRequest{
		ModelName:  "digits",
		Inputs:     []*oippb.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "BYTES", Shape: []int64{1}, Contents: &oippb.InferTensorContents{BytesContents: [][]byte{scene}}}},
		Parameters: map[string]*oippb.InferParameter{"results": {ParameterChoice: &oippb.InferParameter_StringParam{StringParam: "named"}}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	var results map[string]any
	if err := json.Unmarshal([]byte(r.Msg.Parameters["results"].GetStringParam()), &results); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want["results"], any(results)); d != "" || len(r.Msg.Outputs) != 0 {
		t.Errorf("gRPC: %s", d)
	}
	// Tensors that are named come as well.
	body := `{"parameters":{"results":"named"},"outputs":[{"name":"boxes"}],"inputs":[{"name":"image",` + aFile + `,"parameters":{"content_type":"base64"},"data":["` + base64.StdEncoding.EncodeToString(scene) + `"]}]}`
	have = post(t, h.URL+inferPath, []byte(body))
	if d := cmp.Diff(any(want), have.json["parameters"]); d != "" || len(have.json["outputs"].([]any)) != 1 {
		t.Error(d, have.json["error"])
	}
	sizes := map[string]uint64{}
	for _, s := range monitor.Take(true) {
		for size, n := range s.Sizes {
			sizes[size] += n
		}
	}
	if d := cmp.Diff(map[string]uint64{"128x64": 3}, sizes); d != "" {
		t.Errorf("observed: %s", d)
	}
}

// TestSounds sends a WAV as a body and as BYTES, and one window of a longer one.
func TestSounds(t *testing.T) {
	h, _ := echoed(t, bundle.Tensor{Name: "image", DType: "INT16", Shape: []int{1, -1}, Meaning: &bundle.Meaning{Kind: "audio", Audio: &meaning.Audio{Rate: 16000, Window: 4}}})
	samples := []byte{1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0}
	wav := func(b []byte) []byte {
		head := []byte("RIFF....WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80\x3e\x00\x00....\x02\x00\x10\x00data")
		return append(binary.LittleEndian.AppendUint32(head, uint32(len(b))), b...)
	}
	if have := post(t, h.URL+echoPath, wav(samples[:8]), "Content-Type", "audio/wav"); fmt.Sprint(have.json["outputs"]) != "[map[data:[1 2 3 4] datatype:INT16 name:image shape:[1 4]]]" {
		t.Error(have)
	}
	body, length := binaryRequest(aFile, `,"offset":2`, element(wav(samples)))
	if have := post(t, h.URL+echoPath, body, "Inference-Header-Content-Length", length); !bytes.Equal(have.tail, samples[4:]) {
		t.Error(have)
	}
	for query, says := range map[string]string{"": "a sound of 6 samples, 4 are wanted", "?offset=3": "from sample 3 on 4 are wanted", "?offset=x": "a number is wanted"} {
		have := post(t, h.URL+echoPath+query, wav(samples), "Content-Type", "audio/wav")
		if text, _ := have.json["error"].(string); have.status != http.StatusBadRequest || !strings.Contains(text, says) {
			t.Errorf("%s: %d %v", query, have.status, have.json)
		}
	}
}

// FuzzPicture: no file and no parameters make the front answer with anything but 200,
// 400 or 413, and what it takes has the tensor's size.
func FuzzPicture(f *testing.F) {
	jpg, pngs := photo(f, 9, 7)
	f.Add(element(jpg), "", 0, 0, 0)
	f.Add(element(pngs), "", 0, 0, 0)
	f.Add(make([]byte, 12), "rgb", 2, 2, 0)
	f.Add(make([]byte, 64), "nv12", 6, 6, 7)
	h, c := echoed(f, letterboxed("UINT8"))
	want := 24 * 32 * len(c.Inputs[0].Meaning.Ranges)
	f.Fuzz(func(t *testing.T, b []byte, format string, width, height, stride int) {
		input, parameters := aFile, ""
		if format != "" {
			says, _ := json.Marshal(map[string]any{"format": format, "width": width, "height": height, "stride": stride})
			input, parameters = fmt.Sprintf(`"datatype":"UINT8","shape":[%d]`, len(b)), ","+strings.Trim(string(says), "{}")
		}
		body, length := binaryRequest(input, parameters, b)
		r := httptest.NewRequest("POST", echoPath, bytes.NewReader(body))
		r.Header.Set("Inference-Header-Content-Length", length)
		w := httptest.NewRecorder()
		h.Config.Handler.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusOK:
			head, err := strconv.Atoi(w.Header().Get("Inference-Header-Content-Length"))
			if err != nil || w.Body.Len()-head != want {
				t.Fatalf("%d bytes behind %d, want %d", w.Body.Len(), head, want)
			}
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	})
}

// BenchmarkPicture is what the front does with a picture of 640 by 480 pixels for a
// tensor of 224 by 224, without the network and the model.
func BenchmarkPicture(b *testing.B) {
	x := letterboxed("FP32")
	x.Shape = []int{1, 224, 224, 3}
	h, _ := echoed(b, x)
	jpg, _ := photo(b, 640, 480)
	nv12 := make([]byte, 640*480*3/2)
	jpeg, jpegHead := binaryRequest(aFile, "", element(jpg))
	frame, frameHead := binaryRequest(fmt.Sprintf(`"datatype":"UINT8","shape":[%d]`, len(nv12)), `,"format":"nv12","width":640,"height":480`, nv12)
	for name, c := range map[string]struct {
		body []byte
		head string
	}{"jpeg": {jpeg, jpegHead}, "nv12": {frame, frameHead}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest("POST", echoPath, bytes.NewReader(c.body))
				r.Header.Set("Inference-Header-Content-Length", c.head)
				w := httptest.NewRecorder()
				if h.Config.Handler.ServeHTTP(w, r); w.Code != http.StatusOK {
					b.Fatal(w.Body)
				}
			}
		})
	}
}
