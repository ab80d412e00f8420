package tflite

import "testing"

func TestSparsity(t *testing.T) {
	// Four rows of six, sparse along the rows, in blocks of two: levels are rows, columns
	// of blocks, and within a block.
	whole := func() *Sparsity {
		return &Sparsity{Order: []int32{0, 1, 2}, Blocks: []int32{1}, Levels: []Level{
			{Size: 4}, {Sparse: true, Segments: 5, Indices: 3, rising: true, highest: 2}, {Size: 2}}}
	}
	shape := []int32{4, 6}
	if n, err := whole().values(shape); n != 6 || err != nil {
		t.Errorf("%d values, %v", n, err)
	}
	for name, spoil := range map[string]func(s *Sparsity){
		"order twice":       func(s *Sparsity) { s.Order[1] = 0 },
		"order far":         func(s *Sparsity) { s.Order[1] = 3 },
		"order below zero":  func(s *Sparsity) { s.Order[0] = -1 },
		"short order":       func(s *Sparsity) { s.Order = s.Order[:2] },
		"a level too few":   func(s *Sparsity) { s.Levels = s.Levels[:2] },
		"wrong length":      func(s *Sparsity) { s.Levels[0].Size = 5 },
		"block of nothing":  func(s *Sparsity) { s.Levels[2].Size = 0 },
		"block that splits": func(s *Sparsity) { s.Levels[2].Size = 4 },
		"block elsewhere":   func(s *Sparsity) { s.Blocks[0] = 2 },
		"few segments":      func(s *Sparsity) { s.Levels[1].Segments = 4 },
		"falling segments":  func(s *Sparsity) { s.Levels[1].rising = false },
		"index outside":     func(s *Sparsity) { s.Levels[1].highest = 3 },
		"nothing":           func(s *Sparsity) { *s = Sparsity{} },
	} {
		s := whole()
		spoil(s)
		if n, err := s.values(shape); err == nil {
			t.Errorf("%s: %d values", name, n)
		}
	}
	huge := &Sparsity{Order: []int32{0, 1, 2}, Levels: []Level{{Size: 1 << 30}, {Size: 1 << 30}, {Size: 1 << 30}}}
	if _, err := huge.values([]int32{1 << 30, 1 << 30, 1 << 30}); err == nil {
		t.Error("2^90 values")
	}
}

// Tables of the schema hold no table of their own kind, so that walking it ends.
func TestSchemaHasNoCircle(t *testing.T) {
	l := schema()
	var walk func(name string, depth int)
	walk = func(name string, depth int) {
		fields, ok := l.tables[name]
		if !ok {
			t.Fatalf("no table %q", name)
		}
		if depth > 8 {
			t.Fatalf("%s lies too deep", name)
		}
		for _, f := range fields {
			if f.table != "" {
				walk(f.table, depth+1)
			}
			for _, m := range l.unions[f.union] {
				walk(m, depth+1)
			}
		}
	}
	walk("Model", 0)
	if len(l.tables) < 150 || len(l.unions) != 4 {
		t.Errorf("%d tables, %d unions", len(l.tables), len(l.unions))
	}
	if len(builtins) != 210 {
		t.Errorf("%d operators", len(builtins))
	}
}
