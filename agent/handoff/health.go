package handoff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
)

// Health is what an application says of a model.
type Health struct {
	Model   string `json:"model"`
	Version string `json:"version"` // of the release that it runs
	OK      *bool  `json:"ok"`
	Reason  string `json:"reason,omitempty"` // when it is not well
	// Requests are those that it has answered with this release.
	Requests uint64 `json:"requests,omitempty"`
}

const (
	maxHealth = 4 << 10 // bytes of a request
	maxReason = 300
	// Patience is how long an application may be silent about a new release, at least.
	Patience = 2 * time.Minute
)

// Verdict of a trial: neither Passed nor Failed is not yet.
type Verdict struct {
	Passed, Failed bool
	Code, Reason   string
	Requests       uint64
}

// Judge says what an application's words make of a release that it has had for d.
func (s *Server) Judge(model, version string, minutes float64, requests uint64, d time.Duration) Verdict {
	watch := time.Duration(minutes * float64(time.Minute))
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.models[model]
	if h == nil || h.slot.Version != version {
		return Verdict{}
	}
	if s.c.Files[model].Health == HealthNone {
		return Verdict{Passed: d >= watch}
	}
	switch said := h.said; {
	case said == nil && d > max(watch, Patience):
		return Verdict{Failed: true, Code: "probation.silent", Reason: fmt.Sprintf("the application has said nothing of version %s for %v: it reports with POST /v1/health", version, d.Round(time.Second))}
	case said == nil:
		return Verdict{}
	case !*said.OK:
		return Verdict{Failed: true, Code: "probation.unhealthy", Reason: "the application is not well with it: " + said.Reason, Requests: said.Requests}
	default:
		return Verdict{Passed: d >= watch && said.Requests >= requests, Requests: said.Requests}
	}
}

// Problem is a refusal of the local API.
type Problem struct {
	Status int    `json:"-"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Next   string `json:"next"`
}

// Error implements error.
func (p *Problem) Error() string { return p.Detail + " (" + p.Code + ")" }

// Say takes in what an application says. Words about another release than the one that
// was handed over are refused: it has not changed yet.
func (s *Server) Say(h Health) error {
	if h.OK == nil || h.Model == "" || h.Version == "" {
		return &Problem{http.StatusBadRequest, "health.malformed", "model, version and ok are wanted", `send {"model": "…", "version": "…", "ok": true}`}
	}
	h.Reason = strings.ToValidUTF8(h.Reason[:min(len(h.Reason), maxReason)], "")
	slot, worse, err := s.take(&h)
	if err != nil {
		return err
	}
	if worse {
		s.c.Log.Warn("the application is not well", "model", h.Model, "version", h.Version, "reason", h.Reason)
		if s.c.Unwell != nil {
			s.c.Unwell(slot, h.Reason)
		}
	}
	return nil
}

// take keeps the words; worse tells that they are the first bad ones.
func (s *Server) take(h *Health) (slot infer.Slot, worse bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.models[h.Model]
	switch {
	case have == nil:
		return slot, false, &Problem{http.StatusNotFound, "health.model", fmt.Sprintf("no model %.64q was handed to an application here", h.Model), "see 'dunlin-agent status'"}
	case have.slot.Version != h.Version:
		return slot, false, &Problem{http.StatusConflict, "health.version", fmt.Sprintf("the application runs %.64q, %s was handed over", h.Version, have.slot.Version), "load " + s.c.Files[h.Model].Path + " again"}
	}
	was := have.said
	have.said = h
	return have.slot, !*h.OK && (was == nil || *was.OK), nil
}

// ServeHTTP is POST /v1/health of the local API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxHealth+1))
	var h Health
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		err = d.Decode(&h)
	}
	if err == nil && len(b) > maxHealth {
		err = fmt.Errorf("more than %d bytes", maxHealth)
	}
	if err != nil {
		err = &Problem{http.StatusBadRequest, "health.malformed", err.Error(), `send {"model": "…", "version": "…", "ok": true}`}
	} else {
		err = s.Say(h)
	}
	w.Header().Set("Content-Type", "application/json")
	if p, ok := err.(*Problem); ok {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(p.Status)
		json.NewEncoder(w).Encode(p) // a client that went needs no answer
		return
	}
	io.WriteString(w, "{}\n")
}
