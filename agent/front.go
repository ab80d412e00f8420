package agent

import (
	"net/http"

	"github.com/dunlin-edge/dunlin/agent/infer/oip"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/agent/truth"
)

// front is what applications ask: the Open Inference Protocol, and what they say
// of its answers.
func (a *Agent) front() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/", a.truth.Handler())
	mux.Handle("/", oip.Handler(oip.Config{
		Engine: a.infer, Version: Version, SharedMemory: a.c.SharedMemory,
		Answered: func(x oip.Answered) { a.truth.Answered(&x, truth.See(&x)) },
	}))
	return mux
}

// serving is the release of a model that serves.
func (a *Agent) serving(model string) (observe.Key, bool) {
	s, ok := a.infer.Active(model)
	return s.Key, ok
}
