package hostile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/tflite"
	"github.com/dunlin-edge/dunlin/shared/tflite/tflitetest"
)

func TestMain(m *testing.M) { infertest.Main(m) }

// load has a worker load a file and run it once, and returns the code of the refusal;
// "" if it ran.
func load(t *testing.T, s *infer.Server, dir string, b []byte) (code, reason string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "model.tflite"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.Prove(t.Context(), infertest.Model(t, dir, "model.tflite"))
	var r *infer.Refusal
	if err != nil && !errors.As(err, &r) {
		return "other", err.Error()
	}
	if r != nil {
		return r.Code, r.Reason
	}
	return "", ""
}

// variant is a damaged file that the static check and the contract let pass.
type variant struct {
	name string
	file []byte
}

func passing(b []byte) []variant {
	var list []variant
	for name, file := range tflitetest.Damaged(b) {
		m, err := tflite.Parse(file)
		if err != nil || tflite.Check(m, tflite.Policy{}) != nil {
			continue
		}
		c := &bundle.Contract{Number: bundle.ContractNumber, Kind: bundle.KindModel, Model: "digits", Version: "1.0.0", File: "model.tflite",
			Runtime: &bundle.RuntimeNeed{Name: "litert", Min: "2.1.6"}}
		if c.Inputs, c.Outputs, err = bundle.Describe(m); err != nil || c.Validate() != nil {
			continue
		}
		list = append(list, variant{name, file})
	}
	return list
}

// TestPassingVariantsDoNotCrash: what the check lets pass of files with one number of
// their structure replaced may be refused by the runtime or run, but never ends it.
// DUNLIN_VARIANTS sets how many are tried of each model; all of them are too many for
// every day.
func TestPassingVariantsDoNotCrash(t *testing.T) {
	limit, err := strconv.Atoi(os.Getenv("DUNLIN_VARIANTS"))
	if err != nil {
		limit = 50
	}
	s, _ := infertest.Server(t)
	dir := t.TempDir()
	for _, name := range []string{"1.0.0", "1.1.0", "1.1.1"} {
		b, err := os.ReadFile(filepath.Join(infertest.Root(t), "testbed", "models", "digits", name, "model.tflite"))
		if err != nil {
			t.Fatal(err)
		}
		list := passing(b)
		r := rand.New(rand.NewPCG(3, 4))
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		codes := map[string]int{}
		for _, v := range list[:min(limit, len(list))] {
			code, reason := load(t, s, dir, v.file)
			codes[code]++
			if code != "" && code != "prove.start" {
				t.Errorf("%s, %s: %s %s", name, v.name, code, reason)
			}
		}
		t.Logf("%s: %d variants pass the check, of those tried: %d run, %d are refused by the runtime", name, len(list), codes[""], codes["prove.start"])
	}
}

// TestOperatorsAreTheRuntimes: what the check calls unknown or too new, the runtime
// does not load either. (shared/tflite/testdata/operators.py asks the other way round.)
func TestOperatorsAreTheRuntimes(t *testing.T) {
	s, _ := infertest.Server(t)
	dir := t.TempDir()
	with := func(builtin, version int32) (*tflite.Model, []byte) {
		m := tflitetest.Classifier(4)
		m.OpCodes[0] = tflite.OpCode{Builtin: builtin, Version: version}
		b := tflitetest.Marshal(m)
		m, err := tflite.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		return m, b
	}
	operators := 0
	for n := int32(0); ; n++ {
		newest := int32(0)
		for v := int32(1); v < 20; v++ {
			m, _ := with(n, v)
			if problems := tflite.Check(m, tflite.Policy{}); !strings.Contains(fmt.Sprint(problems), "operator.version") && !strings.Contains(fmt.Sprint(problems), "operator.unknown") {
				newest = v
			}
		}
		m, b := with(n, newest+1)
		if strings.HasPrefix(m.OpCodes[0].Name(), "BUILTIN_") {
			break
		}
		if m.OpCodes[0].IsCustom() {
			continue
		}
		if code, reason := load(t, s, dir, b); code != "prove.start" {
			t.Errorf("%s version %d: the check refuses it, the runtime says %q %s", m.OpCodes[0].Name(), newest+1, code, reason)
		}
		operators++
	}
	t.Logf("%d operators", operators)
}
