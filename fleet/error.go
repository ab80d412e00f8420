package fleet

import "fmt"

// Error is what the outside sees: a code noun.reason, a message for people and
// the next step. Anything else that reaches the rim is internal.error and its
// text stays in the log.
type Error struct {
	Code    string
	Message string
	Next    string
	Status  int // HTTP
}

// Error implements error.
func (e *Error) Error() string { return e.Message + " (" + e.Code + ")" }

// Is makes errors.Is compare codes only.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// With returns a copy whose message is formatted anew.
func (e *Error) With(format string, args ...any) *Error {
	c := *e
	c.Message = fmt.Sprintf(format, args...)
	return &c
}
