package offline

import (
	"fmt"

	"github.com/dunlin-edge/dunlin/fleet"
)

func refuse(code, next, format string, args ...any) *fleet.Error {
	return &fleet.Error{Code: code, Message: fmt.Sprintf(format, args...), Next: next}
}
