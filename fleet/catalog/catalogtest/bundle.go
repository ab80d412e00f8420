package catalogtest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Bundle is a bundle in memory. Its file may be any bytes: a server does not look
// into models and libraries.
type Bundle struct {
	*bundle.Packed
	Contract *bundle.Contract
	Blobs    map[string][]byte // by digest, the manifest too
	files    map[string][]byte // by path
}

// Runtime packs a runtime for an architecture.
func Runtime(t testing.TB, arch, version string, library []byte) *Bundle {
	return pack(t, &bundle.Contract{
		Number: bundle.ContractNumber, Kind: bundle.KindRuntime, Model: "runtime-litert-" + arch, Version: version, File: "libLiteRt.so",
		ABI: &bundle.RuntimeABI{Name: "litert", Version: version, Arch: arch, GLibC: "2.34"}, Hardware: "arch=" + arch,
	}, library)
}

// Model packs a model with one number in and one out.
func Model(t testing.TB, name, version string, file []byte) *Bundle {
	tensor := []bundle.Tensor{{Name: "x", DType: "FP32", Shape: []int{1}}}
	return pack(t, &bundle.Contract{
		Number: bundle.ContractNumber, Kind: bundle.KindModel, Model: name, Version: version, File: "model.tflite",
		Runtime: &bundle.RuntimeNeed{Name: "litert", Min: "2.1.6"}, Inputs: tensor, Outputs: tensor,
	}, file)
}

func pack(t testing.TB, c *bundle.Contract, file []byte) *Bundle {
	t.Helper()
	return packFiles(t, c, map[string][]byte{c.File: file})
}

func packFiles(t testing.TB, c *bundle.Contract, files map[string][]byte) *Bundle {
	t.Helper()
	var sources []bundle.Source
	for _, path := range slices.Sorted(maps.Keys(files)) {
		sources = append(sources, bundle.Source{Path: path, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files[path])), nil }})
	}
	p, err := bundle.Pack(c, sources)
	must(t, err)
	b := &Bundle{Packed: p, Contract: c, Blobs: map[string][]byte{}, files: files}
	for _, x := range append(slices.Collect(maps.Values(files)), p.Raw, p.RawConfig, p.RawContract) {
		b.Blobs[bundle.DigestOf(x)] = x
	}
	return b
}

// With is the bundle with one more file, made from the manifest without it.
func (b *Bundle) With(t testing.TB, path string, file func(*bundle.Manifest) ([]byte, error)) *Bundle {
	t.Helper()
	raw, err := file(b.Manifest)
	must(t, err)
	files := maps.Clone(b.files)
	files[path] = raw
	return packFiles(t, b.Contract, files)
}

// Put uploads every blob.
func (b *Bundle) Put(t testing.TB, to interface {
	Put(digest string, r io.Reader, limit int64) error
}) {
	t.Helper()
	for d, x := range b.Blobs {
		must(t, to.Put(d, bytes.NewReader(x), int64(len(x))))
	}
}

// Path is where the bundle is published in a channel.
func (b *Bundle) Path(channel string) string {
	return bundle.TargetPath(channel, b.Contract.Model, b.Contract.Version)
}

// Release is what is signed about the bundle under a counter.
func (b *Bundle) Release(counter int64) bundle.Release {
	return (&bundle.Bundle{Digest: b.Digest, Raw: b.Raw, Manifest: b.Manifest, Contract: b.Contract}).Release(counter)
}

// Target is what a role says about the bundle under a counter.
func (b *Bundle) Target(t testing.TB, counter int64) *metadata.TargetFiles {
	t.Helper()
	custom, err := json.Marshal(bundle.Custom{Release: b.Release(counter)})
	must(t, err)
	hash, err := hex.DecodeString(strings.TrimPrefix(b.Digest, "sha256:"))
	must(t, err)
	return &metadata.TargetFiles{Length: int64(len(b.Raw)), Hashes: metadata.Hashes{"sha256": hash}, Custom: (*json.RawMessage)(&custom)}
}
