// Package pack makes bundles: it reads the model.yaml that people write, takes what
// it can from the model file itself, asks for the rest, and writes an OCI image
// layout, signed for anybody to verify if a key is given. It runs in the CLI only.
package pack

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/tflite"
)

// Config says what to pack.
type Config struct {
	Dir   string // folder with model.yaml and the files that it names
	Asker Asker  // nil: nobody is there, what is missing is an error
	Force bool   // pack what people's words and the file disagree about, and leave the judgement to the devices

	Signature *modelsig.Policy // whose model.sig the folder must carry besides what model.yaml asks; nil: nobody's
	Now       time.Time        // when certificates of signers must be valid
}

// Plan is a bundle that can be written.
type Plan struct {
	*bundle.Packed
	Contract *bundle.Contract
	files    []bundle.Source
}

// Model makes a bundle of a model: the contract from model.yaml and from the
// model file itself. Equal folders give equal digests.
func Model(c Config) (*Plan, error) {
	p := &packer{Config: c}
	var err error
	if p.spec, err = readSpec(c.Dir); err != nil {
		return nil, err
	}
	for _, step := range []func() error{p.signed, p.names, p.runtime, p.tensors, p.golden, p.watch, p.rest, p.judge} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	packed, err := plan(&p.contract, p.sources())
	if err != nil {
		return nil, err
	}
	return packed, p.vouched(packed)
}

func plan(c *bundle.Contract, files []bundle.Source) (*Plan, error) {
	packed, err := bundle.Pack(c, files)
	if err != nil {
		return nil, err
	}
	return &Plan{Packed: packed, Contract: c, files: files}, nil
}

// packer fills in a contract, one step after the other.
type packer struct {
	Config
	spec     *Spec
	contract bundle.Contract
	model    []byte
	made     map[string][]byte // files of the bundle that are in no folder

	statements []*modelsig.Statement // verified, about the folder
}

func (p *packer) names() error {
	s := p.spec
	for _, q := range []struct {
		value *string
		Question
	}{
		{&s.Model, Question{"model", "the name of the model, the same for all its releases", "meter-digits"}},
		{&s.Version, Question{"version", "the version of this release", "1.0.0"}},
		{&s.File, Question{"file", "the model file", "model.tflite"}},
	} {
		if err := fill(p.Asker, q.value, q.Question); err != nil {
			return err
		}
	}
	p.contract = bundle.Contract{
		Number: bundle.ContractNumber, Kind: bundle.KindModel, Model: s.Model, Version: s.Version,
		File: s.File, Labels: s.Labels, Hardware: s.Hardware, State: s.State, Serve: s.Serve, Custom: s.Custom,
	}
	var err error
	p.model, err = p.read(s.File)
	return err
}

// tensors takes names, shapes, types and quantization from the file, and
// meanings from people.
func (p *packer) tensors() error {
	if p.contract.Serve == "external" {
		return p.declared()
	}
	m, err := tflite.Parse(p.model)
	if err != nil {
		return refuse("pack.model", "export the model again; 'dunlin model pack' takes .tflite files", "%s: %v", p.spec.File, err)
	}
	inputs, outputs, err := bundle.Describe(m)
	if err != nil {
		return err
	}
	if p.contract.Inputs, err = p.mean("input", inputs, p.spec.Input, p.spec.Inputs); err != nil {
		return err
	}
	p.contract.Outputs, err = p.mean("output", outputs, p.spec.Output, p.spec.Outputs)
	return err
}

// mean gives each tensor its meaning.
func (p *packer) mean(key string, tensors []bundle.Tensor, only said, byName map[string]said) ([]bundle.Tensor, error) {
	example := map[string]string{"input": "image gray 8x8 0..1", "output": "classes softmax"}[key]
	if len(only) > 0 && len(tensors) != 1 {
		return nil, refuse("pack.meaning", "name each one below '"+key+"s:'", "%s has one %s, %s has %d", SpecName, key, p.spec.File, len(tensors))
	}
	for name := range byName {
		if len(only) > 0 || !hasTensor(tensors, name) {
			return nil, refuse("pack.meaning", "name the "+key+"s as 'dunlin model inspect' prints them", "%s: %q is no %s of %s, or is said twice", SpecName, name, key, p.spec.File)
		}
	}
	for i := range tensors {
		t := &tensors[i]
		words := byName[t.Name]
		if len(words) == 0 {
			words = only
		}
		q := Question{key, "what the " + key + " " + t.Name + " stands for", example}
		if len(tensors) > 1 {
			q.Key = key + "s." + t.Name
		}
		if len(words) == 0 {
			var text string
			if err := fill(p.Asker, &text, q); err != nil {
				return nil, err
			}
			words = strings.Fields(text)
		}
		m, err := parseMeaning(q.Key, words)
		if err != nil {
			return nil, err
		}
		claimed, ok := m.claims(t.Shape)
		if !ok && !p.Force {
			return nil, refuse("pack.shape", "mend "+SpecName+" or export the model again; --force leaves the judgement to the devices",
				"%s says %q of %s, but in %s its shape is %v", SpecName, strings.Join(words, " "), t.Name, p.spec.File, t.Shape)
		}
		if !ok {
			t.Shape = claimed
		}
		t.Meaning = &m.Meaning
	}
	return tensors, nil
}

func hasTensor(list []bundle.Tensor, name string) bool {
	for _, t := range list {
		if t.Name == name {
			return true
		}
	}
	return false
}

// judge asks of the bundle what a device will ask before it runs it.
func (p *packer) judge() error {
	for _, f := range p.spec.Files {
		if err := p.there(f); err != nil {
			return err
		}
	}
	if p.contract.Labels != "" {
		b, err := p.read(p.contract.Labels)
		if err != nil {
			return err
		}
		if err := p.contract.CheckLabels(b); err != nil {
			return err
		}
	}
	if p.Force {
		return nil
	}
	return p.contract.CheckModel(p.model)
}

// sources are the files of the bundle: those that the contract names, and those
// to be carried along.
func (p *packer) sources() []bundle.Source {
	var list []bundle.Source
	for _, f := range append(p.contract.Files(), p.spec.Files...) {
		if b, ok := p.made[f]; ok {
			list = append(list, bundle.Source{Path: f, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }})
			continue
		}
		list = append(list, fileSource(f, p.path(f)))
	}
	return list
}

func fileSource(path, from string) bundle.Source {
	return bundle.Source{Path: path, Open: func() (io.ReadCloser, error) { return os.Open(from) }}
}

// there says whether a file that model.yaml names lies in the folder.
func (p *packer) there(name string) error {
	if err := bundle.ValidPath(name); err != nil {
		return refuse("pack.path", "put the file into the folder and name it by its path from there", "%s: %v", SpecName, err)
	}
	_, err := os.Stat(p.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return refuse("pack.file", "put the file there, or mend "+SpecName, "%s names %s, which is not in %s", SpecName, name, p.Dir)
	}
	return err
}

func (p *packer) path(name string) string { return filepath.Join(p.Dir, filepath.FromSlash(name)) }

func (p *packer) read(name string) ([]byte, error) {
	if err := p.there(name); err != nil {
		return nil, err
	}
	return os.ReadFile(p.path(name))
}
