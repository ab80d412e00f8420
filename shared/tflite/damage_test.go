package tflite_test

import (
	"strings"
	"testing"

	. "github.com/dunlin-edge/dunlin/shared/tflite"
	"github.com/dunlin-edge/dunlin/shared/tflite/tflitetest"
)

// TestDamaged: every variant gets a verdict, and each kind of problem is found by some.
func TestDamaged(t *testing.T) {
	found := map[string]int{}
	for _, name := range []string{"rich", "1.0.0"} {
		for _, file := range tflitetest.Damaged(models(t)[name]) {
			m, err := Parse(file)
			if err != nil {
				found["refused"]++
				continue
			}
			problems := Check(m, Policy{})
			if problems == nil {
				found["passes"]++
				continue
			}
			found[problems[0].Code]++
		}
	}
	t.Log(found)
	for _, code := range strings.Fields(`refused passes operator.code operator.custom operator.order operator.output operator.tensor operator.unknown
		operator.version signature.name signature.tensor subgraph.input subgraph.output tensor.buffer tensor.data tensor.shape tensor.type`) {
		if found[code] == 0 {
			t.Errorf("no variant was found by %s", code)
		}
	}
}
