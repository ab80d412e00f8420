package update

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dunlin-edge/dunlin/shared/trust"
)

// TestEveryRefusalIsAnEvent raises every code that trust has, for metadata and for a
// file of a model: each is reported with what to do, and so is that it is over.
func TestEveryRefusalIsAnEvent(t *testing.T) {
	for _, m := range trust.Codes() {
		t.Run(m.Code, func(t *testing.T) {
			d := newDevice(t)
			d.repo.deny = fmt.Errorf("refresh: %w", &trust.Refusal{Code: m.Code, Err: errors.New("no")})
			d.repo.fail = fmt.Errorf("download: %w", &trust.Refusal{Code: m.Code, Err: errors.New("no")})
			synctest.Test(t, func(t *testing.T) {
				d.e.wake = make(chan struct{}, 1)
				d.run(func() {
					d.e.Refresh()
					time.Sleep(10 * time.Second) // of the bubble: several tries
					d.repo.mu.Lock()
					d.repo.deny = nil
					d.repo.mu.Unlock()
					time.Sleep(2 * retryMax)
					d.wish("1.0.0", 1)
					time.Sleep(time.Minute)
				})
			})
			var metadata, file, believed int
			for _, e := range d.events {
				switch {
				case e.Type == EventBelieved:
					believed++
				case e.Type != EventRefused:
				case e.Code != m.Code || e.Next != m.Next || e.Detail == "":
					t.Errorf("event %+v", e)
				case e.Model == "m":
					file++
				default:
					metadata++
				}
			}
			if metadata < 3 || file != 1 || believed != 1 {
				t.Errorf("%d of metadata, %d of a file, %d times over", metadata, file, believed)
			}
		})
	}
}
