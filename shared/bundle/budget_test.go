package bundle

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// utf32 is what numpy stores of a list of texts of two characters.
func utf32(texts ...string) []byte {
	var b []byte
	for _, s := range texts {
		var two [2]rune
		copy(two[:], []rune(s))
		for _, r := range two {
			b = binary.LittleEndian.AppendUint32(b, uint32(r))
		}
	}
	return b
}

// TestTexts reads lists of texts as numpy writes them; what is no character cannot
// do harm.
func TestTexts(t *testing.T) {
	for name, c := range map[string]struct {
		file []byte
		want []string
	}{
		"unicode":      {npy("<U2", "3,", utf32("ab", "ü", "")), []string{"ab", "ü", ""}},
		"bytes":        {npy("|S3", "2,", []byte("abcd\x00\x00")), []string{"abc", "d"}},
		"no character": {npy("<U1", "1,", []byte{255, 255, 255, 255}), []string{"\uFFFD"}},
		"no UTF-8":     {npy("|S2", "1,", []byte{0xff, 'a'}), []string{"\uFFFDa"}},
	} {
		a, err := ReadNPY(c.file)
		if err != nil || a.DType != Text {
			t.Errorf("%s: %+v %v", name, a, err)
			continue
		}
		var got []string
		for i := range a.Len() {
			got = append(got, a.Text(i))
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for _, descr := range []string{"<U0", "<U1000", "<U", ">U2", "|S-1"} {
		if a, err := ReadNPY(npy(descr, "1,", utf32("ab"))); err == nil {
			t.Errorf("%s: %+v", descr, a)
		}
	}
}

// TestSliceLabels: every case has labels, and nobody can make them many.
func TestSliceLabels(t *testing.T) {
	arrays := map[string][]byte{"image": npy("<f4", "2, 3", float32s(1, 2, 3, 4, 5, 6)), "scores": npy("<f4", "2, 3", float32s(1, 2, 3, 4, 5, 6))}
	for labels, ok := range map[string]bool{"a": true, "a,b": true, "": false, "a,a": false, ",a": false} {
		wide := []byte{}
		for range 2 {
			row := make([]rune, 4)
			copy(row, []rune(labels))
			for _, r := range row {
				wide = binary.LittleEndian.AppendUint32(wide, uint32(r))
			}
		}
		arrays["site"] = npy("<U4", "2,", wide)
		c := sample()
		c.Inputs[0].Shape, c.Outputs[0].Shape, c.Golden.Slices = []int{1, 3}, []int{1, 3}, "site"
		cases, err := LoadGolden(c, npz(arrays, false))
		if (err == nil) != ok {
			t.Errorf("%q: %v", labels, err)
		}
		if ok && len(cases.Slices) != 2 {
			t.Errorf("%q: %v", labels, cases.Slices)
		}
	}
	c := sample()
	c.Golden.Slices = "light"
	if _, err := LoadGolden(c, npz(arrays, false)); Code(err) != CodeGoldenInvalid {
		t.Errorf("labels that are not there: %v", err)
	}
}

// TestProofKeys: what a contract may ask of the proof has ranges.
func TestProofKeys(t *testing.T) {
	for name, change := range map[string]func(*Contract){
		"repeat":                 func(c *Contract) { c.Golden.Repeat = "often" },
		"slices that are tensor": func(c *Contract) { c.Golden.Slices = "scores" },
		"cosine":                 func(c *Contract) { c.Golden.Tolerance["scores"] = Tolerance{Cosine: 1.5} },
		"iou of no boxes":        func(c *Contract) { c.Golden.Tolerance["scores"] = Tolerance{IoU: 0.5} },
		"nothing":                func(c *Contract) { c.Golden.Tolerance["scores"] = Tolerance{Pass: 0.5} },
		"p99":                    func(c *Contract) { c.Budgets = []Budget{{Class: "any", LatencyP99US: -1}} },
		"gap without slices":     func(c *Contract) { c.Budgets = []Budget{{Class: "any", MaxSliceGap: 0.1}} },
		"gap":                    func(c *Contract) { c.Golden.Slices, c.Budgets = "x", []Budget{{Class: "any", MaxSliceGap: 2}} },
		"relative":               func(c *Contract) { c.Budgets = []Budget{{Class: "any", Relative: &Relative{Start: math.NaN()}}} },
		"shadow of a state":      func(c *Contract) { c.State, c.Shadow = "carry", &Shadow{0.1, 5, 200, 0.2, 0.9} },
		"shadow of a file":       func(c *Contract) { c.Serve, c.Shadow = "file", &Shadow{0.1, 5, 200, 0.2, 0.9} },
		"shadow for ever":        func(c *Contract) { c.Shadow = &Shadow{0.1, 5000, 200, 0.2, 0.9} },
		"shadow of nothing":      func(c *Contract) { c.Shadow = &Shadow{0.1, 5, 200, 0, 0.9} },
		"shadow without a bound": func(c *Contract) { c.Shadow = &Shadow{0.1, 5, 0, 0.2, 0.9} },
		"nothing to agree on": func(c *Contract) {
			c.Golden, c.Watch, c.Reference, c.Outputs[0].Meaning, c.Shadow = nil, nil, nil, nil, &Shadow{0.1, 5, 200, 0.2, 0.9}
		},
	} {
		c := sample()
		change(c)
		if err := c.Validate(); Code(err) != CodeContractInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := sample()
	c.Golden.Repeat, c.Golden.Slices, c.Shadow = RepeatClose, "site", &Shadow{0.1, 5, 200, 0.2, 0.9}
	c.Budgets = []Budget{{Class: "any", ColdStartMS: 1, LatencyP99US: 2, MaxSliceGap: 0.1, Relative: &Relative{LatencyP95: 1.2}}}
	if got := (Budget{LatencyP95US: 1_000_000, MaxSliceGap: 0.1, Relative: &Relative{LatencyP50: 1.2}}).String(); got != "p95 1000000 us, gap between slices 0.1, p50 1.2 times the active release's" {
		t.Error(got)
	}
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeContract(b)
	if d := cmp.Diff(c, back); err != nil || d != "" {
		t.Error(err, d)
	}
}
