package truth

import (
	"bytes"
	_ "embed" // the description
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
)

//go:embed openapi.yaml
var openAPI []byte

// maxBody bounds a request, in bytes.
const maxBody = 4 << 10

// Handler serves what applications say, under /v1.
func (b *Book) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/feedback", b.feedback)
	mux.HandleFunc("POST /v1/metrics", b.metric)
	mux.HandleFunc("GET /v1/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		w.Write(openAPI) // a client that went needs no answer
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, &Problem{http.StatusNotFound, "route.unknown", "there is no " + r.Method + " " + r.URL.Path + " here", "read /v1/openapi.yaml"})
	})
	return mux
}

// feedback is the answer to a word about an answer.
type feedback struct {
	RequestID string `json:"request_id"`
	Model     string `json:"model"`
	Release   string `json:"release"` // catalog path
	Right     bool   `json:"right"`
}

func (b *Book) feedback(w http.ResponseWriter, r *http.Request) {
	var in struct {
		RequestID string          `json:"request_id"`
		Model     string          `json:"model"`
		Label     json.RawMessage `json:"label"`
		Correct   *bool           `json:"correct"`
	}
	err := read(w, r, &in)
	f := Feedback{RequestID: in.RequestID, Model: in.Model, Correct: in.Correct}
	if err == nil && in.Label != nil {
		err = f.label(in.Label)
	}
	labelled := f.Label != "" || f.Index != nil
	if err == nil && (f.RequestID == "" || labelled == (f.Correct != nil)) {
		err = errors.New("a request_id and either label or correct are wanted")
	}
	if err != nil {
		refuse(w, &Problem{http.StatusBadRequest, "feedback.malformed", err.Error(), `send {"request_id": "…", "label": "…"} or {"request_id": "…", "correct": true}`})
		return
	}
	j, err := b.Judge(f)
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, http.StatusOK, feedback{in.RequestID, j.Key.Model, j.Key.Path, j.Right})
}

// label reads a class name or an index.
func (f *Feedback) label(raw json.RawMessage) error {
	if json.Unmarshal(raw, &f.Label) == nil && f.Label != "" {
		return nil
	}
	if json.Unmarshal(raw, &f.Index) == nil && f.Index != nil {
		return nil
	}
	return errors.New("label: a class name or an index is wanted")
}

func (b *Book) metric(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Name  string   `json:"name"`
		Value *float64 `json:"value"`
		Model string   `json:"model"`
	}
	err := read(w, r, &in)
	if err == nil && in.Value == nil {
		err = errors.New("a value is wanted")
	}
	if err != nil {
		refuse(w, &Problem{http.StatusBadRequest, "metric.malformed", err.Error(), `send {"name": "…", "value": 0.5}`})
		return
	}
	if err := b.Measure(Metric{in.Name, *in.Value, in.Model}); err != nil {
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// read reads one JSON object strictly: known keys, nothing behind it.
func read(w http.ResponseWriter, r *http.Request, out any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return errors.New("the body is longer than " + strconv.Itoa(maxBody) + " bytes, or did not come")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(out); err != nil {
		return errors.New("the body is not understood: " + err.Error())
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the JSON")
	}
	return nil
}

func refuse(w http.ResponseWriter, err error) {
	var p *Problem
	if !errors.As(err, &p) {
		p = &Problem{http.StatusInternalServerError, "internal.error", err.Error(), "look into the agent's log"}
	}
	reply(w, p.Status, p)
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) // a client that went needs no answer
}
