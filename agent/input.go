package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// RequestFrom makes an Open Inference Protocol request of a file: a .json that is
// one, an .npz with an array for each input, or an .npy for a model with one
// input. Metadata is the model's own. Of an array with more than one case the
// first is taken.
func RequestFrom(name string, file, metadata []byte) ([]byte, error) {
	var m struct {
		Inputs []struct {
			Name     string `json:"name"`
			Datatype string `json:"datatype"`
			Shape    []int  `json:"shape"`
		} `json:"inputs"`
	}
	if err := json.Unmarshal(metadata, &m); err != nil {
		return nil, fmt.Errorf("read model metadata: %w", err)
	}
	arrays := map[string]*bundle.Array{}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".json":
		return file, nil
	case ".npz":
		var err error
		if arrays, err = bundle.ReadNPZ(file); err != nil {
			return nil, err
		}
	case ".npy":
		a, err := bundle.ReadNPY(file)
		if err != nil {
			return nil, err
		}
		if len(m.Inputs) != 1 {
			return nil, errors.New("an .npy file is for a model with one input; use .npz")
		}
		arrays[m.Inputs[0].Name] = a
	default:
		return nil, &LocalError{"input.kind", "a file of this kind is not understood: " + name, "give .jpg, .png, .wav, .json, .npz or .npy"}
	}
	type tensor struct {
		Name     string          `json:"name"`
		Shape    []int           `json:"shape"`
		Datatype string          `json:"datatype"`
		Data     json.RawMessage `json:"data"`
	}
	req := struct {
		Inputs []tensor `json:"inputs"`
	}{}
	for _, in := range m.Inputs {
		a := arrays[in.Name]
		if a == nil {
			return nil, &LocalError{"input.missing", fmt.Sprintf("the file has no array %q", in.Name), fmt.Sprintf("give an array %s %s %v", in.Name, in.Datatype, in.Shape)}
		}
		row := a.Data
		if len(a.Shape) == len(in.Shape) && len(in.Shape) > 0 && in.Shape[0] == 1 && a.Len() > 0 {
			row = a.Row(0)
		}
		req.Inputs = append(req.Inputs, tensor{in.Name, in.Shape, a.DType, list(bundle.Values(a.DType, row))})
	}
	return json.Marshal(req)
}

// list writes numbers as JSON; a model's input has no other values.
func list(values []float64) json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%v", v)
	}
	b.WriteByte(']')
	return b.Bytes()
}
