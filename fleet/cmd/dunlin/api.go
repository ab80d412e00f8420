package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

// api is the server's API with values instead of bytes.
type api struct{ *publish.Client }

func (c *cli) api() (api, error) {
	p, err := c.publisher()
	return api{p}, err
}

// Call sends in as JSON, nil for nothing, and reads a JSON answer into out, nil
// for none.
func (a api) Call(ctx context.Context, method, path string, in, out any) error {
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
	if err := json.Unmarshal(answer, out); err != nil {
		return &fleet.Error{Code: "server.answer", Message: fmt.Sprintf("%s %s: %v", method, path, err), Next: "check that server and dunlin are of versions that fit"}
	}
	return nil
}

// maxEvent bounds one server-sent event.
const maxEvent = 4 << 20

// Events reads server-sent events and gives the data of each to take, until the
// stream ends or take returns an error.
func (a api) Events(ctx context.Context, path string, take func(data []byte) error) error {
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
