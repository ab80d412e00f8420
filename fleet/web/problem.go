package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"

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
	return outward(e)
}

func writeProblem(w http.ResponseWriter, p *problem) {
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	w.Write(p.json())
}

// outward is an error of ours as a problem.
func outward(e *fleet.Error) *problem {
	return &problem{Status: e.Status, Code: e.Code, Title: http.StatusText(e.Status), Detail: e.Message, Next: e.Next}
}

// notFound is the problem of a path that nobody serves.
func notFound(r *http.Request) *problem {
	return outward(fleet.ErrRouteUnknown.With("there is no %s %s", r.Method, r.URL.Path))
}

// useProblems makes huma's own refusals ours; huma has no other place for it.
var useProblems = sync.OnceFunc(func() { huma.NewError = malformed })

// malformed is what huma's own checks of a request become.
func malformed(status int, msg string, errs ...error) huma.StatusError {
	detail := msg
	for _, x := range errs {
		detail += ": " + x.Error()
	}
	if status == http.StatusRequestEntityTooLarge {
		return outward(fleet.ErrTooLarge)
	}
	p := outward(fleet.ErrBadRequest.With("%s", detail))
	if status != http.StatusUnprocessableEntity {
		p.Status, p.Title = status, http.StatusText(status)
	}
	return p
}

// route registers an operation with its role; errors become problems.
func route[I, O any](a *api, op huma.Operation, role string, h func(context.Context, *I) (*O, error)) {
	declare(&op, role)
	op.MaxBodyBytes = maxBody
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, a.problem(err)
		}
		return out, nil
	})
}

// declare writes the role of an operation into the API's description, where the
// middleware reads it too.
func declare(op *huma.Operation, role string) {
	op.Extensions = map[string]any{"x-role": role}
	if role != public {
		op.Security = []map[string][]string{{"token": {}}}
	}
}

// wanted is the role that an operation declares.
func wanted(op *huma.Operation) string {
	role, _ := op.Extensions["x-role"].(string)
	return role
}

func get(path, id, summary string) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary}
}

func post(path, id, summary string) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, DefaultStatus: http.StatusOK}
}
