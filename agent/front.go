package agent

import (
	"net/http"
	"path/filepath"
	"time"

	"github.com/dunlin-edge/dunlin/agent/capture"
	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/agent/truth"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// front is what applications ask: the Open Inference Protocol, and what they say
// of its answers.
func (a *Agent) front() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/", a.truth.Handler())
	mux.Handle("POST /v1/health", a.kinds.Files)
	mux.Handle("/", oip.Handler(oip.Config{
		Engine: a.kinds, Version: Version, SharedMemory: a.c.SharedMemory,
		Answered: func(x oip.Answered) {
			seen := truth.See(&x)
			a.truth.Answered(&x, seen)
			a.shots.Answered(&x, seen)
		},
	}))
	return mux
}

// openCaptures goes on with the captures that this device holds. What leaves the
// device goes through them.
func (a *Agent) openCaptures(fsys durable.FS, now func() time.Time) error {
	quota := int64(a.c.CaptureMB) << 20
	if err := a.queues.OpenCapture(quota); err != nil {
		return err
	}
	var err error
	a.shots, err = capture.Open(capture.Config{
		FS: fsys, Dir: filepath.Join(a.c.State, "capture"), Device: a.id.Device, Allowed: a.c.Capture == CaptureAllow, Redact: a.c.CaptureRedact,
		Queue: a.queues.Capture, Quota: quota, Open: a.id.OpenCaptures, Now: now, Queued: func() { a.link.Flush() }, Log: a.log.With("part", "capture"),
	})
	return err
}

// serving is the release of a model that serves.
func (a *Agent) serving(model string) (observe.Key, bool) {
	s, ok := a.kinds.Active(model)
	return s.Key, ok
}
