package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/dunlin-edge/dunlin/agent"
	"github.com/dunlin-edge/dunlin/agent/draw"
	"github.com/dunlin-edge/dunlin/agent/infer/named"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// namedAnswer is the part of an answer that names what a picture or a sound shows.
type namedAnswer struct {
	Model      string `json:"model_name"`
	Version    string `json:"model_version"`
	Parameters struct {
		Results *named.Results `json:"results"`
	} `json:"parameters"`
}

// askFile asks about a picture or a sound.
func askFile(ctx context.Context, e *env, l *agent.Local, model, kind string, file []byte, f askFlags) error {
	query := url.Values{"top": {strconv.Itoa(f.top)}}
	if f.at >= 0 {
		query.Set("offset", strconv.Itoa(f.at))
	}
	out, err := l.InferFile(ctx, model, kind, file, query)
	if err != nil {
		return err
	}
	var a namedAnswer
	if err := json.Unmarshal(out, &a); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	r := a.Parameters.Results
	if f.out != "" {
		if r == nil || !strings.HasPrefix(kind, "image/") {
			return &agent.LocalError{Code: "ask.out", Detail: "there is nothing to draw: " + model + " names no classes and no boxes of a picture", Next: "ask without --out"}
		}
		if err := drawTo(f.out, file, r); err != nil {
			return err
		}
	}
	switch {
	case e.json:
		_, err = e.stdout.Write(append(out, '\n'))
		return err
	case r == nil:
		return printAnswer(e, out)
	}
	fmt.Fprintf(e.stdout, "%s %s\n", a.Model, a.Version)
	return printNamed(e, r)
}

// printNamed prints a table of classes and one of boxes.
func printNamed(e *env, r *named.Results) error {
	w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	if r.Classes != nil {
		fmt.Fprintln(w, "CLASS\tINDEX\tSCORE")
		for _, c := range r.Classes {
			fmt.Fprintf(w, "%s\t%d\t%.4g\n", c.Label, c.Index, c.Score)
		}
	}
	if r.Boxes != nil {
		fmt.Fprintln(w, "FOUND\tSCORE\tLEFT\tTOP\tRIGHT\tBOTTOM")
		for _, b := range r.Boxes {
			fmt.Fprintf(w, "%s\t%.4g\t%.6g\t%.6g\t%.6g\t%.6g\n", b.Label, b.Score, b.Box[0], b.Box[1], b.Box[2], b.Box[3])
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if r.Boxes != nil && r.Picture != nil {
		_, err := fmt.Fprintf(e.stdout, "in a picture of %d by %d pixels\n", r.Picture.Width, r.Picture.Height)
		return err
	}
	return nil
}

// drawTo writes the picture with boxes, or with the highest class as its caption.
func drawTo(path string, file []byte, r *named.Results) error {
	var boxes []draw.Box
	for _, b := range r.Boxes {
		boxes = append(boxes, draw.Box{Left: b.Box[0], Top: b.Box[1], Right: b.Box[2], Bottom: b.Box[3], Label: fmt.Sprintf("%s %.2f", b.Label, b.Score), Class: b.Index})
	}
	caption := ""
	if len(r.Classes) > 0 {
		caption = fmt.Sprintf("%s %.2f", r.Classes[0].Label, r.Classes[0].Score)
	}
	b, err := draw.Picture(path, file, boxes, caption)
	if err != nil {
		return &agent.LocalError{Code: "ask.out", Detail: err.Error(), Next: "give --out a name that ends with .png or .jpg"}
	}
	return durable.WriteFile(durable.OS{}, "ask", path, b, 0o644)
}
