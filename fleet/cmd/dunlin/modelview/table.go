package modelview

import (
	"fmt"
	"io"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/tflite"
)

// Table writes the view for people, in columns that a tabwriter aligns.
func (v *View) Table(w io.Writer) {
	fmt.Fprintf(w, "file\t%s\t%d bytes\n", clean(v.File), v.Bytes)
	fmt.Fprintf(w, "digest\t%s\n", v.Digest)
	if v.Description != "" {
		fmt.Fprintf(w, "description\t%s\n", clean(v.Description))
	}
	for _, s := range v.Signatures {
		if s.Key != "" {
			fmt.Fprintf(w, "signature\t%s\n", clean(s.Key))
		}
		Tensors(w, "input", s.Inputs)
		Tensors(w, "output", s.Outputs)
	}
	v.Inside(w)
}

// Inside writes what is in the file beyond what a bundle's contract says.
func (v *View) Inside(w io.Writer) {
	if len(v.Problems) == 0 {
		v.network(w)
	}
	v.card(w)
	for _, n := range v.Notes {
		fmt.Fprintf(w, "note\t%s\n", clean(n))
	}
	for _, p := range v.Problems {
		fmt.Fprintf(w, "problem\t%s\n", clean(p))
	}
}

// network writes operators, weights and what runtime all that needs.
func (v *View) network(w io.Writer) {
	var custom []string
	for _, o := range v.Operators {
		if o.Custom {
			custom = append(custom, clean(o.Name))
			fmt.Fprintf(w, "operator\t%s\t%d\tcustom\n", clean(o.Name), o.Count)
			continue
		}
		fmt.Fprintf(w, "operator\t%s\t%d\tversion %d\n", o.Name, o.Count, o.Version)
	}
	if v.Subgraphs > 1 {
		fmt.Fprintf(w, "subgraphs\t%d\n", v.Subgraphs)
	}
	fmt.Fprintf(w, "parameters\t%d\t%d bytes\n", v.Parameters.Elements, v.Parameters.Bytes)
	for _, x := range v.Weights {
		fmt.Fprintf(w, "weights\t%s\t%d bytes\t%d tensors\n", x.Type, x.Bytes, x.Tensors)
	}
	if len(custom) == 0 {
		fmt.Fprintf(w, "runtime\tevery operator is one of LiteRT %s\n", tflite.RuntimeVersion)
	} else {
		fmt.Fprintf(w, "runtime\toperators of LiteRT %s, and custom ones: %s\n", tflite.RuntimeVersion, strings.Join(custom, ", "))
	}
	if v.Converted != "" {
		fmt.Fprintf(w, "\tits converter asks for TensorFlow Lite %s or newer\n", clean(v.Converted))
	}
}

// card writes the embedded metadata.
func (v *View) card(w io.Writer) {
	if c := v.Card; c != nil {
		for _, x := range [][2]string{{"name", c.Name}, {"description", c.Description}, {"version", c.Version}, {"author", c.Author}, {"licence", c.Licence}} {
			if x[1] != "" {
				fmt.Fprintf(w, "metadata\t%s\t%s\n", x[0], clean(x[1]))
			}
		}
		cards(w, "input", c.Inputs)
		cards(w, "output", c.Outputs)
	}
	for _, l := range v.Labels {
		fmt.Fprintf(w, "labels\t%s\t%d: %s\n", clean(l.File), len(l.Names), clean(few(l.Names)))
	}
	for _, name := range v.Appended {
		fmt.Fprintf(w, "appended\t%s\n", clean(name))
	}
}

func cards(w io.Writer, what string, list []tflite.TensorCard) {
	for i, c := range list {
		words := []string{clean(c.Name)}
		if c.Description != "" {
			words = append(words, clean(c.Description))
		}
		for _, x := range []string{c.Content, c.Colour, c.Layout} {
			if x != "" {
				words = append(words, x)
			}
		}
		if c.Rate > 0 {
			words = append(words, fmt.Sprintf("%d Hz", c.Rate))
		}
		if len(c.Mean) > 0 {
			words = append(words, fmt.Sprintf("(x - %v) / %v", c.Mean, c.Std))
		}
		if len(c.Min) > 0 {
			words = append(words, fmt.Sprintf("%v to %v", c.Min, c.Max))
		}
		fmt.Fprintf(w, "metadata\t%s %d\t%s\n", what, i, strings.Join(words, ", "))
	}
}

// Tensors writes inputs or outputs, one a line.
func Tensors(w io.Writer, what string, list []bundle.Tensor) {
	for _, t := range list {
		fmt.Fprintf(w, "%s\t%s\t%s %v%s%s\n", what, clean(t.Name), t.DType, t.Shape, quantText(t.Quant), meaningText(t.Meaning))
	}
}

func quantText(q *bundle.Quant) string {
	switch {
	case q == nil:
		return ""
	case len(q.Scale) == 1:
		return fmt.Sprintf(", %v*(q%+d)", q.Scale[0], -q.Zero[0])
	default:
		return fmt.Sprintf(", %d scales along axis %d", len(q.Scale), q.Axis)
	}
}

func meaningText(m *bundle.Meaning) string {
	if m == nil {
		return ""
	}
	return ", " + clean(m.String())
}

// clean makes text of a file fit for a terminal: one line, at most 120 characters, no
// control characters.
func clean(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > 120 {
			b.WriteString("…")
			break
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// few joins the first names of a list.
func few(names []string) string {
	if len(names) <= 5 {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:5], ", ") + ", …"
}

func mismatch(file string, labels int, output string, classes int) string {
	return fmt.Sprintf("%s holds %d labels, the output %s has %d values", file, labels, output, classes)
}
