package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/dunlin-edge/dunlin/agent"
	"github.com/dunlin-edge/dunlin/agent/infer/named"
)

// askFlags are what ask takes besides words.
type askFlags struct {
	out string // drawing
	top int
	at  int
}

// ask sends a file to a model on this device and prints its outputs: of a picture or a
// sound what they are named.
func ask(ctx context.Context, e *env, args []string) error {
	var f askFlags
	words, c, err := parse(e, "ask", args, func(s *flag.FlagSet) {
		s.StringVar(&f.out, "out", "", "`file` (.png or .jpg) for the picture with what was found")
		s.IntVar(&f.top, "top", named.DefaultTop, "classes that are named")
		s.IntVar(&f.at, "at", -1, "`sample` of a sound at which the window begins; without it the sound must be as long as the window")
	}, 1, 2)
	if err != nil {
		return err
	}
	if f.top < 1 || f.at < -1 {
		return fmt.Errorf("%w: --top of at least 1 and --at of at least 0 are wanted", errUsage)
	}
	l := agent.NewLocal(c)
	meta, err := l.Metadata(ctx, words[0])
	if err != nil {
		return err
	}
	if len(words) == 1 {
		return printWants(e, meta)
	}
	in, err := os.ReadFile(words[1])
	if err != nil {
		return fmt.Errorf("read input: %w", err)
	}
	if kind := named.ContentType(in); kind != "" {
		return askFile(ctx, e, l, words[0], kind, in, f)
	}
	if f.out != "" {
		return fmt.Errorf("%w: --out draws on a .jpg or .png, %s is neither", errUsage, words[1])
	}
	body, err := agent.RequestFrom(words[1], in, meta)
	if err != nil {
		return err
	}
	out, err := l.Infer(ctx, words[0], body)
	if err != nil {
		return err
	}
	if e.json {
		_, err = e.stdout.Write(append(out, '\n'))
		return err
	}
	return printAnswer(e, out)
}

// modelMetadata is the part of the Open Inference Protocol's model metadata that
// is printed.
type modelMetadata struct {
	Name     string         `json:"name"`
	Versions []string       `json:"versions"`
	Inputs   []tensorWanted `json:"inputs"`
	Outputs  []tensorWanted `json:"outputs"`
}

type tensorWanted struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`

	Parameters struct {
		Meaning string `json:"meaning"`
	} `json:"parameters"`
}

func printWants(e *env, meta []byte) error {
	if e.json {
		_, err := e.stdout.Write(append(meta, '\n'))
		return err
	}
	var m modelMetadata
	if err := json.Unmarshal(meta, &m); err != nil {
		return fmt.Errorf("read model metadata: %w", err)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	for _, t := range m.Inputs {
		fmt.Fprintf(w, "input\t%s\t%s\t%v\t%s\n", t.Name, t.Datatype, t.Shape, t.Parameters.Meaning)
	}
	for _, t := range m.Outputs {
		fmt.Fprintf(w, "output\t%s\t%s\t%v\t%s\n", t.Name, t.Datatype, t.Shape, t.Parameters.Meaning)
	}
	return w.Flush()
}

// printAnswer prints each output; of a vector its highest element first.
func printAnswer(e *env, out []byte) error {
	var r struct {
		Model   string `json:"model_name"`
		Version string `json:"model_version"`
		Outputs []struct {
			Name  string    `json:"name"`
			Shape []int     `json:"shape"`
			Data  []float64 `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	fmt.Fprintf(e.stdout, "%s %s\n", r.Model, r.Version)
	for _, o := range r.Outputs {
		row := len(o.Data)
		if n := len(o.Shape); n > 0 && o.Shape[n-1] > 0 {
			row = o.Shape[n-1]
		}
		for i := 0; i+row <= len(o.Data) && row > 0; i += row {
			best := i
			for k := i; k < i+row; k++ {
				if o.Data[k] > o.Data[best] {
					best = k
				}
			}
			fmt.Fprintf(e.stdout, "%s[%d]: highest at %d: %.4g\n", o.Name, i/row, best-i, o.Data[best])
		}
	}
	return nil
}
