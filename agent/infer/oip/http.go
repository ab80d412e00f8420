package oip

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/named"
	"github.com/dunlin-edge/dunlin/agent/infer/oip/elements"
)

// refuse answers with what is wrong.
func refuse(w http.ResponseWriter, err error) { fail(w, statusOf(err), err) }

func fail(w http.ResponseWriter, status int, err error) {
	reply(w, status, map[string]string{"error": err.Error()})
}

func reply(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b)
}

func (f *front) server(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]any{"name": "dunlin", "version": f.version, "extensions": f.extensions()})
}

// slot finds the model and version of a request, or answers 404.
func (f *front) slot(w http.ResponseWriter, r *http.Request) (infer.Slot, bool) {
	s, err := f.find(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		refuse(w, err)
	}
	return s, err == nil
}

// serverReady tells whether every model can answer now.
func (f *front) serverReady(w http.ResponseWriter, _ *http.Request) {
	ready := f.allReady()
	reply(w, readiness(ready), map[string]bool{"ready": ready})
}

func (f *front) ready(w http.ResponseWriter, r *http.Request) {
	if s, ok := f.slot(w, r); ok {
		ready := f.e.Ready(s.Key.Model)
		reply(w, readiness(ready), map[string]any{"name": s.Key.Model, "ready": ready})
	}
}

func readiness(ready bool) int {
	if ready {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

func (f *front) metadata(w http.ResponseWriter, r *http.Request) {
	s, ok := f.slot(w, r)
	if !ok {
		return
	}
	reply(w, http.StatusOK, map[string]any{"name": s.Key.Model, "versions": []string{s.Version}, "platform": platform,
		"inputs": describe(s.Contract.Inputs), "outputs": describe(s.Contract.Outputs)})
}

func (f *front) infer(w http.ResponseWriter, r *http.Request) {
	s, ok := f.slot(w, r)
	if !ok {
		return
	}
	b, done, err := f.body(w, r, bodyLimit(s.Contract))
	if err != nil {
		refuse(w, err)
		return
	}
	defer done()
	var req *request
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if slices.Contains(files, kind) {
		req, err = fileRequest(s.Contract, b, r.URL.Query())
	} else {
		req, err = read(b, r.Header.Get(headerLength))
	}
	if err != nil {
		refuse(w, bad(err))
		return
	}
	a, err := f.run(r.Context(), s, r.PathValue("version"), req)
	if err != nil {
		refuse(w, err)
		return
	}
	send(w, r, a)
}

// response is the JSON of an answer.
type response struct {
	ID      string         `json:"id"`
	Model   string         `json:"model_name"`
	Version string         `json:"model_version"`
	Outputs []outputTensor `json:"outputs"`
	// Parameters holds results by name.
	Parameters map[string]*named.Results `json:"parameters,omitempty"`
}

type outputTensor struct {
	Name       string      `json:"name"`
	Datatype   string      `json:"datatype"`
	Shape      []int       `json:"shape"`
	Parameters *outputMeta `json:"parameters,omitempty"`
	Data       any         `json:"data,omitempty"`
}

// outputMeta says where an output's elements are when they are not in the JSON.
type outputMeta struct {
	BinarySize *int   `json:"binary_data_size,omitempty"`
	Region     string `json:"shared_memory_region,omitempty"`
	ByteSize   int64  `json:"shared_memory_byte_size,omitempty"`
	Offset     int64  `json:"shared_memory_offset,omitempty"`
}

// headerLength is the HTTP header that says how much of a body is JSON; tensors
// follow it.
const headerLength = "Inference-Header-Content-Length"

// send writes the answer: JSON, and the binary outputs behind it.
func send(w http.ResponseWriter, r *http.Request, a *answer) {
	resp := response{ID: a.id, Model: a.by.Key.Model, Version: a.by.Version, Outputs: []outputTensor{}}
	if a.results != nil {
		resp.Parameters = map[string]*named.Results{"results": a.results}
	}
	var tail [][]byte
	for _, o := range a.outputs {
		x := outputTensor{Name: o.name, Datatype: o.datatype, Shape: o.shape}
		switch {
		case o.memory != nil:
			x.Parameters = &outputMeta{Region: o.memory.region, ByteSize: int64(len(o.raw)), Offset: o.memory.offset}
		case o.binary:
			n := len(o.raw)
			x.Parameters = &outputMeta{BinarySize: &n}
			tail = append(tail, o.raw)
		case o.datatype == "BYTES":
			x.Data = append([]string{}, o.text...)
		default:
			x.Data = elements.JSON(o.datatype, o.raw)
		}
		resp.Outputs = append(resp.Outputs, x)
	}
	body, err := json.Marshal(resp)
	if err != nil {
		fail(w, http.StatusInternalServerError, errors.New("the answer cannot be written"))
		return
	}
	if plain(a.id) {
		w.Header().Set(headerRequest, a.id)
	}
	contentType := "application/json"
	if tail != nil {
		contentType = "application/octet-stream"
		w.Header().Set(headerLength, strconv.Itoa(len(body)))
	}
	w.Header().Set("Content-Type", contentType)
	compressed(w, r, append([][]byte{body}, tail...)...)
}
