package tflitetest

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/dunlin-edge/dunlin/shared/tflite"
)

// MarshalCard writes a card as the metadata of a model.
func MarshalCard(c *tflite.Card) []byte {
	graph := table(refs(2, tensorCards(c.Inputs)), refs(3, tensorCards(c.Outputs)))
	return finish("M001", table(text(0, c.Name), text(1, c.Description), text(2, c.Version), refs(3, []ref{graph}), text(4, c.Author),
		text(5, c.Licence), files(6, c.Files), text(7, c.Parser)))
}

func tensorCards(list []tflite.TensorCard) []ref {
	var out []ref
	for _, c := range list {
		fields := []field{text(0, c.Name), text(1, c.Description), files(6, c.Files)}
		if kind := slices.Index([]string{"", "feature", "image", "boxes", "audio"}, c.Content); kind > 0 {
			colour := slices.Index([]string{"", "rgb", "gray"}, c.Colour)
			fields = append(fields, field{3, 4, 0, table(scalar(0, 1, uint64(kind)), field{1, 4, 0, table(scalar(0, 1, uint64(colour)))})})
		}
		if c.Mean != nil {
			options := table(floats(0, c.Mean), floats(1, c.Std))
			fields = append(fields, refs(4, []ref{table(scalar(0, 1, 1), field{1, 4, 0, options})}))
		}
		if c.Min != nil {
			fields = append(fields, field{5, 4, 0, table(floats(0, c.Max), floats(1, c.Min))})
		}
		out = append(out, table(fields...))
	}
	return out
}

func files(n int, list []tflite.File) field {
	var out []ref
	for _, f := range list {
		kind := slices.Index([]string{"", "description", "labels", "value-labels"}, f.Kind)
		out = append(out, table(text(0, f.Name), text(1, f.Description), scalar(2, 1, uint64(max(kind, 0))), text(3, f.Locale)))
	}
	return refs(n, out)
}

func floats(n int, list []float32) field {
	var b []byte
	for _, v := range list {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return field{n, 4, 0, func(w *writer) int { return w.vector(4, len(list), b) }}
}
