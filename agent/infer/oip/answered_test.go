package oip_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// TestAnswered is told of every answer, with the picture as it came, and the id that
// the answer has.
func TestAnswered(t *testing.T) {
	tensor := letterboxed("FP32")
	c := &bundle.Contract{Inputs: []bundle.Tensor{tensor}, Outputs: []bundle.Tensor{tensor}}
	c.Outputs[0].Meaning = nil
	var told []oip.Answered
	h := start(t, oip.Config{Engine: echo{c}, Answered: func(a oip.Answered) { told = append(told, a) }})
	jpg, _ := photo(t, 40, 30)
	body := `{"id":"a b","inputs":[{"name":"image","datatype":"BYTES","shape":[1],"parameters":{"content_type":"base64"},"data":["` + base64.StdEncoding.EncodeToString(jpg) + `"]}]}`
	status, answer := do(t, http.MethodPost, h.URL+echoPath, "application/json", body)
	if status != http.StatusOK || len(told) != 1 || told[0].ID != "a b" || answer["id"] != "a b" {
		t.Fatalf("%d %v", status, answer["error"])
	}
	if files := told[0].Files(); len(files) != 1 || !bytes.Equal(files[0], jpg) || len(told[0].Inputs[0]) != 24*32*3*4 || told[0].Slot.Key.Model != "echo" {
		t.Errorf("%d files, %d bytes of tensor", len(files), len(told[0].Inputs[0]))
	}
	status, answer = do(t, http.MethodPost, h.URL+echoPath, "application/json", `{"inputs":[]}`)
	if status != http.StatusBadRequest || len(told) != 1 {
		t.Errorf("%d %v: %d were told", status, answer, len(told))
	}
	resp, err := http.Post(h.URL+echoPath, "application/json", bytes.NewReader([]byte(`{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"parameters":{"content_type":"base64"},"data":["`+base64.StdEncoding.EncodeToString(jpg)+`"]}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if id := resp.Header.Get("Dunlin-Request-Id"); len(told) != 2 || id != told[1].ID || len(id) != 26 {
		t.Errorf("%d were told, the last as %q, the header says %q", len(told), told[len(told)-1].ID, id)
	}
}
