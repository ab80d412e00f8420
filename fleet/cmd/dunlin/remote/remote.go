// Package remote is the server's API as dunlin's commands use it.
package remote

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

// API is the server's API with values instead of bytes.
type API struct{ *publish.Client }

// Call sends in as JSON, nil for nothing, and reads a JSON answer into out, nil
// for none.
func (a API) Call(ctx context.Context, method, path string, in, out any) error {
	var text []byte
	if in != nil {
		var err error
		if text, err = json.Marshal(in); err != nil {
			return err
		}
	}
	answer, err := a.Do(ctx, method, path, text)
	if err != nil || out == nil {
		return err
	}
	return read(method+" "+path, answer, out)
}

func read(asked string, answer []byte, out any) error {
	if err := json.Unmarshal(answer, out); err != nil {
		return &fleet.Error{Code: "server.answer", Message: fmt.Sprintf("%s: %v", asked, err), Next: "check that server and dunlin are of versions that fit"}
	}
	return nil
}

// A creation whose answer was lost is sent again under the same key.
const (
	createTries = 3
	createPause = time.Second
)

// Create makes something once, however often it has to be sent; an empty key is
// replaced by a fresh one.
func (a API) Create(ctx context.Context, path, key string, in, out any) error {
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if key == "" {
		key = rand.Text()
	}
	for try := 1; ; try++ {
		answer, err := a.Client.Create(ctx, path, key, text)
		if err == nil {
			return read("POST "+path, answer, out)
		}
		var refused *fleet.Error
		answered := errors.As(err, &refused) && refused.Status != 0
		if answered || try == createTries {
			return err
		}
		timer := time.NewTimer(createPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// maxEvent bounds one server-sent event.
const maxEvent = 4 << 20

// Events reads server-sent events and gives the data of each to take, until the
// stream ends or take returns an error.
func (a API) Events(ctx context.Context, path string, take func(data []byte) error) error {
	body, err := a.Stream(ctx, path)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if err := take([]byte(data)); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	return nil
}

// listView is a page of the API.
type listView[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// All reads every page of a list.
func All[T any](ctx context.Context, api API, path string, q url.Values) ([]T, error) {
	items := []T{}
	for {
		var p listView[T]
		at := path
		if len(q) > 0 {
			at += "?" + q.Encode()
		}
		if err := api.Call(ctx, http.MethodGet, at, nil, &p); err != nil {
			return nil, err
		}
		items = append(items, p.Items...)
		if p.Next == "" {
			return items, nil
		}
		q.Set("after", p.Next)
	}
}
