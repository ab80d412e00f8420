package pack

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Question is something that only a person knows.
type Question struct {
	Key     string // of model.yaml
	Text    string
	Example string // an answer
}

// Asker puts questions to a person. An empty answer means: not answered.
type Asker interface {
	Ask(q Question) (string, error)
}

// Terminal asks on a terminal.
type Terminal struct {
	In  *bufio.Reader
	Out io.Writer
}

// Ask implements Asker.
func (t Terminal) Ask(q Question) (string, error) {
	fmt.Fprintf(t.Out, "%s (like %q)\n%s: ", q.Text, q.Example, q.Key)
	line, err := t.In.ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// fill asks for *value if it is empty. Without anybody to ask, the error names
// the missing key and an example of its line.
func fill(asker Asker, value *string, q Question) error {
	if *value != "" {
		return nil
	}
	if asker != nil {
		answer, err := asker.Ask(q)
		if err != nil {
			return err
		}
		*value = answer
	}
	if *value == "" {
		return refuse("pack.missing", fmt.Sprintf("add a line like '%s: %s' to %s", q.Key, q.Example, SpecName), "%s does not say: %s", SpecName, q.Text)
	}
	return nil
}

func refuse(code, next, format string, args ...any) *fleet.Error {
	return &fleet.Error{Code: code, Message: fmt.Sprintf(format, args...), Next: next}
}
