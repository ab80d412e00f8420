package publish

import (
	"errors"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// code is the code of a refusal.
func code(err error) string {
	var e *fleet.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return bundle.Code(err)
}
