package batch

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Tensor is an input as the model's metadata describes it.
type Tensor struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"` // -1: any
}

// ErrKind is returned for a path that holds cases of no kind that is read.
var ErrKind = errors.New("cases of this kind are not read; give a folder of .npy, .npz, .json, .jpg, .png or .wav, an .npz or a .csv")

// Open reads the cases of a path for a model with these inputs: an .npz whose
// arrays are named like the inputs and have one row a case, a .csv with the numbers
// of one input a line, or a folder with one .npy, .npz, .json, .jpg, .png or .wav file
// a case, in the order of their names. A .json is an infer request as it is; a picture
// or a sound is for a model whose contract says that its input is one.
func Open(path string, inputs []Tensor) (Source, error) {
	if len(inputs) == 0 {
		return nil, errors.New("the model has no inputs")
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return openFolder(path, inputs)
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".npz":
		return openRows(path, inputs)
	case ".csv":
		return openCSV(path, inputs)
	}
	return nil, fmt.Errorf("%s: %w", path, ErrKind)
}

// request writes the question that gives each input these bytes.
func request(inputs []Tensor, arrays map[string]*bundle.Array) (Question, error) {
	type tensor struct {
		Tensor
		Parameters map[string]int `json:"parameters"`
	}
	var q Question
	var list []tensor
	for _, in := range inputs {
		a := arrays[in.Name]
		if a == nil {
			return q, fmt.Errorf("there is no array %q; %s %v is wanted", in.Name, in.Datatype, in.Shape)
		}
		shape, err := fit(in.Shape, a.Shape)
		if err != nil {
			return q, fmt.Errorf("array %q: %w", in.Name, err)
		}
		list = append(list, tensor{Tensor{in.Name, a.DType, shape}, map[string]int{"binary_data_size": len(a.Data)}})
		q.Tensors = append(q.Tensors, a.Data...)
	}
	var err error
	q.JSON, err = json.Marshal(map[string]any{"inputs": list})
	return q, err
}

// fit is the shape of an array as the input has it: the same number of dimensions,
// or one less, without the first, which is one case.
func fit(want, have []int) ([]int, error) {
	if len(have) == len(want)-1 && (want[0] == 1 || want[0] < 0) {
		have = append([]int{1}, have...)
	}
	same := slices.EqualFunc(want, have, func(w, h int) bool { return w < 0 || w == h })
	if !same {
		return nil, fmt.Errorf("shape %v, %v is wanted", have, want)
	}
	return have, nil
}

// rows are the cases of one .npz.
type rows struct {
	name   string
	inputs []Tensor
	arrays map[string]*bundle.Array
	n      int
}

func openRows(path string, inputs []Tensor) (Source, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	arrays, err := bundle.ReadNPZ(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r := &rows{filepath.Base(path), inputs, arrays, -1}
	for _, in := range inputs {
		a := arrays[in.Name]
		if a == nil {
			return nil, fmt.Errorf("%s: there is no array %q; rows of %s %v are wanted", path, in.Name, in.Datatype, in.Shape)
		}
		if r.n >= 0 && a.Len() != r.n {
			return nil, fmt.Errorf("%s: %d rows of %q where others have %d", path, a.Len(), in.Name, r.n)
		}
		r.n = a.Len()
	}
	return r, nil
}

func (r *rows) Len() int { return r.n }

func (r *rows) Name(i int) string { return r.name + "#" + strconv.Itoa(i) }

func (r *rows) Question(i int) (Question, error) {
	one := map[string]*bundle.Array{}
	for _, in := range r.inputs {
		a := r.arrays[in.Name]
		one[in.Name] = &bundle.Array{DType: a.DType, Shape: a.Shape[1:], Data: a.Row(i)}
	}
	return request(r.inputs, one)
}

// table is the lines of a .csv.
type table struct {
	name  string
	input Tensor
	lines [][]string
}

func openCSV(path string, inputs []Tensor) (Source, error) {
	if len(inputs) != 1 {
		return nil, fmt.Errorf("%s: a .csv is for a model with one input, this one has %d; use .npz", path, len(inputs))
	}
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	in := csv.NewReader(bytes.NewReader(b))
	in.TrimLeadingSpace = true
	lines, err := in.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(lines) > 0 && slices.ContainsFunc(lines[0], func(s string) bool { _, err := strconv.ParseFloat(s, 64); return err != nil }) {
		lines = lines[1:] // names of the columns
	}
	return &table{filepath.Base(path), inputs[0], lines}, nil
}

func (t *table) Len() int { return len(t.lines) }

func (t *table) Name(i int) string { return t.name + "#" + strconv.Itoa(i) }

func (t *table) Question(i int) (Question, error) {
	shape, n := slices.Clone(t.input.Shape), 1
	for k, d := range shape {
		if d < 0 { // one case
			shape[k] = 1
		}
		n *= shape[k]
	}
	if len(t.lines[i]) != n {
		return Question{}, fmt.Errorf("%d numbers, %d are wanted", len(t.lines[i]), n)
	}
	for k, s := range t.lines[i] {
		if !json.Valid([]byte(s)) || !strings.ContainsAny(s[:1], "-0123456789tf") {
			return Question{}, fmt.Errorf("column %d: %.40q is no number", k+1, s)
		}
	}
	data := json.RawMessage("[" + strings.Join(t.lines[i], ",") + "]")
	b, err := json.Marshal(map[string]any{"inputs": []any{map[string]any{"name": t.input.Name, "datatype": t.input.Datatype, "shape": shape, "data": data}}})
	return Question{JSON: b}, err
}

// folder is one file a case.
type folder struct {
	dir    string
	files  []string
	inputs []Tensor
}

func openFolder(dir string, inputs []Tensor) (Source, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{dir: dir, inputs: inputs}
	for _, e := range entries {
		switch strings.ToLower(filepath.Ext(e.Name())) {
		case ".npy", ".npz", ".json", ".jpg", ".jpeg", ".png", ".wav":
			if !e.IsDir() {
				f.files = append(f.files, e.Name())
			}
		}
	}
	if len(f.files) == 0 {
		return nil, fmt.Errorf("%s: %w", dir, ErrKind)
	}
	return f, nil
}

func (f *folder) Len() int { return len(f.files) }

func (f *folder) Name(i int) string { return f.files[i] }

func (f *folder) Question(i int) (Question, error) {
	name := f.files[i]
	b, err := readFile(filepath.Join(f.dir, name))
	if err != nil {
		return Question{}, err
	}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".json":
		return Question{JSON: b}, nil
	case ".npz":
		arrays, err := bundle.ReadNPZ(b)
		if err != nil {
			return Question{}, err
		}
		return request(f.inputs, arrays)
	}
	if len(f.inputs) != 1 {
		return Question{}, fmt.Errorf("a file of this kind is for a model with one input, this one has %d; use .npz", len(f.inputs))
	}
	if strings.ToLower(filepath.Ext(name)) != ".npy" {
		return asElement(f.inputs[0].Name, b)
	}
	a, err := bundle.ReadNPY(b)
	if err != nil {
		return Question{}, err
	}
	return request(f.inputs, map[string]*bundle.Array{f.inputs[0].Name: a})
}

// asElement is the question that gives an input a file as it is: one element of BYTES.
func asElement(input string, file []byte) (Question, error) {
	q := Question{Tensors: append(binary.LittleEndian.AppendUint32(nil, uint32(len(file))), file...)}
	var err error
	q.JSON, err = json.Marshal(map[string]any{"inputs": []any{map[string]any{
		"name": input, "datatype": "BYTES", "shape": []int{1}, "parameters": map[string]int{"binary_data_size": len(q.Tensors)},
	}}})
	return q, err
}

// maxFile bounds a file of cases.
const maxFile = 512 << 20

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return b, err
}
