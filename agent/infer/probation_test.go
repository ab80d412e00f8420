package infer_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// noisy adds what a camera adds to a live image, as testbed/models/data.py.
func noisy(rng *rand.Rand, image []byte) []byte {
	var out []byte
	for _, v := range bundle.Values("FP32", image) {
		x := float32(min(max(v+0.03*rng.NormFloat64(), 0), 1))
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
	}
	return out
}

// TestProbation serves live inputs with mild noise from real workers on several
// devices and judges after every tenth request: what is good never fails, `late`
// always does, and soon. `shifted` and `creep` pass: what is merely worse is found
// by comparing devices.
func TestProbation(t *testing.T) {
	images, _ := heldOut(t)
	for release, code := range map[string]string{"1.0.0": "", "1.1.0": "", "shifted": "", "creep": "", "late": "probation.score"} {
		t.Run(release, func(t *testing.T) {
			s, m := infertest.Server(t)
			slot := infertest.Digits(t, release)
			activate(t, s, slot)
			e := observe.Expect{Score: &slot.Contract.Reference.Score, Classes: slot.Contract.Reference.Classes, Duration: time.Second, Requests: 100}
			for device := range 4 {
				rng := rand.New(rand.NewPCG(uint64(device), 11))
				m.Begin(slot.Key)
				var v observe.Verdict
				for n := 1; n <= 200 && !v.Failed; n++ {
					if _, err := s.Infer(t.Context(), "digits", [][]byte{noisy(rng, images[rng.IntN(len(images))])}); err != nil {
						t.Fatal(err)
					}
					if n%10 == 0 {
						v = m.Judge(slot.Key, e, time.Hour)
					}
				}
				if v.Code != code || v.Passed != (code == "") {
					t.Errorf("device %d: %+v, want %q", device, v, code)
				}
				if v.Failed && v.Answered > 50 {
					t.Errorf("device %d: noticed after %d requests", device, v.Answered)
				}
			}
		})
	}
}
