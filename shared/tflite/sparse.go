package tflite

import "fmt"

// Sparsity says how the values of a tensor that are not zero are laid out: level by
// level in the order of Order, where levels beyond the shape's are those of blocks.
type Sparsity struct {
	Order  []int32 // a permutation of the levels
	Blocks []int32 // by level beyond the shape's: the dimension that it splits
	Levels []Level
}

// Level is one level of a sparse tensor.
type Level struct {
	Sparse   bool
	Size     int32 // dense: its length
	Segments int   // sparse: entries of the list of segments, one more than there are rows
	Indices  int   // sparse: entries of the list of indices
	rising   bool  // segments begin with 0, never fall and end with Indices
	highest  int64 // of the indices; -1: there are none
}

func readSparsity(t table) *Sparsity {
	s := &Sparsity{Order: t.int32s(0), Blocks: t.int32s(1)}
	for _, c := range t.tables(2, 64) {
		s.Levels = append(s.Levels, readLevel(c))
	}
	return s
}

func readLevel(t table) Level {
	l := Level{Sparse: t.uint8(0) != 0, Size: t.int32(1)}
	segments, indices := readIndexes(t, 3), readIndexes(t, 5)
	l.Segments, l.Indices, l.highest = len(segments), len(indices), -1
	l.rising = len(segments) > 0 && segments[0] == 0 && segments[len(segments)-1] == int64(len(indices))
	for i := 1; i < len(segments); i++ {
		l.rising = l.rising && segments[i] >= segments[i-1]
	}
	for _, x := range indices {
		if x < 0 { // no index, and larger than any
			x = 1 << 31
		}
		l.highest = max(l.highest, x)
	}
	return l
}

// readIndexes reads a union of vectors of 1, 2 or 4 bytes.
func readIndexes(t table, field int) []int64 {
	c, ok := t.child(field)
	width := map[string]int{"Uint8Vector": 1, "Uint16Vector": 2, "Int32Vector": 4}[schema().member(t, field, "SparseIndexVector")]
	if !ok || width == 0 {
		return nil
	}
	pos, n := c.vector(0, width)
	if n == 0 || !t.r.spend(8*n) {
		return nil
	}
	list := make([]int64, n)
	for i := range list {
		switch width {
		case 1:
			list[i] = int64(t.r.u8(pos + i))
		case 2:
			list[i] = int64(t.r.u16(pos + 2*i))
		case 4:
			list[i] = int64(int32(t.r.u32(pos + 4*i)))
		}
	}
	return list
}

// values returns how many values a tensor of a shape stores, or what is wrong.
func (s *Sparsity) values(shape []int32) (int64, error) {
	levels := len(shape) + len(s.Blocks)
	if len(s.Order) != levels || len(s.Levels) != levels || levels == 0 {
		return 0, fmt.Errorf("%d levels in an order of %d for %d dimensions and %d blocks", len(s.Levels), len(s.Order), len(shape), len(s.Blocks))
	}
	size, err := s.sizes(shape)
	if err != nil {
		return 0, err
	}
	seen := make([]bool, levels)
	count := int64(1)
	for i, which := range s.Order {
		if which < 0 || int(which) >= levels || seen[which] {
			return 0, fmt.Errorf("the order %v is no permutation", s.Order)
		}
		seen[which] = true
		l := s.Levels[i]
		switch {
		case !l.Sparse && int64(l.Size) != size[which]:
			return 0, fmt.Errorf("level %d has length %d of %d", i, l.Size, size[which])
		case !l.Sparse:
			count *= int64(l.Size)
		case int64(l.Segments) != count+1 || !l.rising || l.highest >= size[which]:
			return 0, fmt.Errorf("level %d: segments or indices do not fit", i)
		default:
			count = int64(l.Indices)
		}
		if count > maxElements {
			return 0, fmt.Errorf("more than %d values", maxElements)
		}
	}
	return count, nil
}

// sizes returns the length of every level: of the shape's dimensions in blocks, then
// of the blocks.
func (s *Sparsity) sizes(shape []int32) ([]int64, error) {
	size := make([]int64, len(shape), len(shape)+len(s.Blocks))
	for i, d := range shape {
		size[i] = int64(d)
	}
	for i, dim := range s.Blocks {
		length := int64(0)
		for k, which := range s.Order {
			if int(which) == len(shape)+i {
				length = int64(s.Levels[k].Size)
			}
		}
		if dim < 0 || int(dim) >= len(shape) || length < 1 || size[dim]%length != 0 {
			return nil, fmt.Errorf("block %d of length %d splits dimension %d", i, length, dim)
		}
		size[dim] /= length
		size = append(size, length)
	}
	return size, nil
}
