package web

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// stallTime is how long a body may bring nothing. A slow line is no stall: the
// time begins anew with every byte that comes.
const stallTime = 30 * time.Second

// bounded gives every body a first deadline, also those that nobody will read: the
// server reads the rest of a refused request before it answers.
func bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(stallTime)) // whoever reads will hear of an error
		}
		h.ServeHTTP(w, r)
	})
}

// moving reads a body that must not stall. Its errors are ErrStalled and ErrCut,
// and those of a connection without deadlines.
type moving struct {
	r    io.Reader
	conn *http.ResponseController
}

func moves(w http.ResponseWriter, r *http.Request) moving {
	return moving{r.Body, http.NewResponseController(w)}
}

// Read implements io.Reader.
func (m moving) Read(p []byte) (int, error) {
	if err := m.conn.SetReadDeadline(time.Now().Add(stallTime)); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, fleet.ErrStalled.With("no byte of the body came for %v", stallTime)
	}
	return n, fleet.ErrCut.With("the body ended early: %v", err)
}

// body reads a bounded body.
func body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(moves(w, r), maxBody+1))
	if len(b) > maxBody {
		return nil, fleet.ErrTooLarge
	}
	return b, err
}
