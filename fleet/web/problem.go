package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dunlin-edge/dunlin/fleet"
)

const problemType = "application/problem+json"

// problem is the body of every error, RFC 9457 with our code and next step.
type problem struct {
	Status int    `json:"status"`
	Code   string `json:"code" doc:"noun.reason, stable"`
	Title  string `json:"title"`
	Detail string `json:"detail" doc:"a sentence for people"`
	Next   string `json:"next" doc:"what to do"`
}

// GetStatus and Error make a problem an error of huma.
func (p *problem) GetStatus() int { return p.Status }

// Error implements error.
func (p *problem) Error() string { return p.Detail + " (" + p.Code + ")" }

// ContentType implements huma.ContentTypeFilter.
func (p *problem) ContentType(string) string { return problemType }

func (p *problem) json() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		return nil // a struct of strings always encodes
	}
	return b
}

// problem turns any error into what the outside sees; what has no code is logged
// and becomes internal.error.
func (a *api) problem(err error) *problem {
	var e *fleet.Error
	if !errors.As(err, &e) {
		a.Log.Error("request failed", "err", err)
		e = fleet.ErrInternal
	}
	return &problem{Status: e.Status, Code: e.Code, Title: http.StatusText(e.Status), Detail: e.Message, Next: e.Next}
}

func writeProblem(w http.ResponseWriter, p *problem) {
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	w.Write(p.json())
}

// notFound is the problem of a path that nobody serves.
func notFound(r *http.Request) *problem {
	return &problem{Status: http.StatusNotFound, Code: "route.unknown", Title: "Not Found", Detail: "there is no " + r.Method + " " + r.URL.Path, Next: "read the API description at /openapi.yaml"}
}

// malformed is what huma's own checks of a request become.
func malformed(status int, msg string, errs ...error) huma.StatusError {
	e := fleet.ErrBadRequest
	detail := msg
	for _, x := range errs {
		detail += ": " + x.Error()
	}
	if status == http.StatusUnprocessableEntity {
		status = http.StatusBadRequest
	}
	return &problem{Status: status, Code: e.Code, Title: http.StatusText(status), Detail: detail, Next: e.Next}
}

// route registers an operation with its role; errors become problems.
func route[I, O any](a *api, op huma.Operation, role string, h func(context.Context, *I) (*O, error)) {
	op.Metadata = map[string]any{"role": role}
	if role != public {
		op.Security = []map[string][]string{{"token": {}}}
	}
	op.MaxBodyBytes = maxBody
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, a.problem(err)
		}
		return out, nil
	})
}

func get(path, id, summary string) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary}
}

func post(path, id, summary string) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, DefaultStatus: http.StatusOK}
}
