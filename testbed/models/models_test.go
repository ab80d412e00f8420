package models

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/pack"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/tflite"
)

// TestReleases packs every release as its publisher would. The one whose file is not
// what its words say is refused, and the one that the static check sees through,
// unless the publisher insists; the other bad ones get through, and devices have to
// find out.
func TestReleases(t *testing.T) {
	for folder, version := range map[string]string{
		"1.0.0": "1.0.0", "1.1.0": "1.1.0", "1.1.1": "1.1.1",
		"wrong": "1.2.0-wrong", "crash": "1.2.1-crash", "shape": "1.2.2-shape", "slow": "1.2.3-slow",
		"late": "1.2.4-late", "shifted": "1.2.5-shifted", "creep": "1.2.6-creep",
	} {
		t.Run(folder, func(t *testing.T) {
			dir := filepath.Join("digits", folder)
			plan, err := pack.Model(pack.Config{Dir: dir})
			if want := map[string]string{"shape": "pack.shape", "crash": bundle.CodeModelCheck}[folder]; want != "" {
				var refusal *fleet.Error
				if code := bundle.Code(err); code != want && (!errors.As(err, &refusal) || refusal.Code != want) {
					t.Fatalf("pack: %v, want %s", err, want)
				}
				plan, err = pack.Model(pack.Config{Dir: dir, Force: true})
			}
			if err != nil {
				t.Fatal(err)
			}
			if plan.Contract.Version != version {
				t.Errorf("version %s, want %s", plan.Contract.Version, version)
			}
			if r := plan.Contract.Reference; r == nil || r.Samples < 200 {
				t.Errorf("reference: %+v", r)
			}
			model, err := os.ReadFile(filepath.Join(dir, "model.tflite"))
			if err != nil {
				t.Fatal(err)
			}
			m, err := tflite.Parse(model)
			if err != nil {
				t.Fatal(err)
			}
			if problems := tflite.Check(m, tflite.Policy{}); len(problems) > 0 != (folder == "crash") {
				t.Errorf("static check: %v", problems)
			}
		})
	}
}

// TestHeldOut reads what clients of tests and demo send.
func TestHeldOut(t *testing.T) {
	b, err := os.ReadFile("digits/test.npz")
	if err != nil {
		t.Fatal(err)
	}
	arrays, err := bundle.ReadNPZ(b)
	if err != nil {
		t.Fatal(err)
	}
	images, labels := arrays["images"], arrays["labels"]
	if images == nil || labels == nil || images.DType != "FP32" || labels.DType != "INT64" || images.Len() != labels.Len() || images.Len() < 200 {
		t.Fatalf("images %+v, labels %+v", images, labels)
	}
	for i, v := range bundle.Values(images.DType, images.Data) {
		if v < 0 || v > 1 {
			t.Fatalf("pixel %d is %v, outside of 0..1", i, v)
		}
	}
}

// TestSize keeps what is committed below a megabyte.
func TestSize(t *testing.T) {
	var total int64
	err := filepath.WalkDir("digits", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if total > 1e6 {
		t.Errorf("%d bytes of models", total)
	}
}
