package crashfs

import (
	"bytes"
	"crypto/sha256"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
)

func sortedNames(e entries) []string { return slices.Sorted(maps.Keys(e)) }

// choice is one thing that a crash decides: how much of a file's writes is there,
// or which change of a directory is.
type choice struct {
	node    *node
	content [][]byte // of a file: one of these
	change  int      // of a directory: this one is there (1) or not (0)
}

func (c choice) options() int {
	if c.content != nil {
		return len(c.content)
	}
	return 2
}

// choices lists what a crash now would decide.
func (f *FS) choices() []choice {
	var out []choice
	for _, n := range f.root.universe() {
		if len(n.edits) > 0 {
			out = append(out, choice{node: n, content: n.contents()})
		}
		for i := range n.changes {
			out = append(out, choice{node: n, change: i})
		}
	}
	return out
}

// contents lists what may be in a file after a crash, nothing of the pending
// writes first, all of them last.
func (n *node) contents() [][]byte {
	var out [][]byte
	add := func(b []byte) {
		if !slices.ContainsFunc(out, func(have []byte) bool { return bytes.Equal(have, b) }) {
			out = append(out, b)
		}
	}
	now := slices.Clone(n.base)
	add(slices.Clone(now))
	for _, e := range n.edits {
		if half := len(e.data) / 2; half > 0 {
			torn := edit{off: e.off, data: e.data[:half]}
			add(torn.apply(slices.Clone(now)))
		}
		if end := e.off + int64(len(e.data)); end > int64(len(now)) && !e.cut {
			hole := edit{off: end, cut: true}
			add(hole.apply(slices.Clone(now))) // the size came, the bytes did not
		}
		now = e.apply(now)
		add(slices.Clone(now))
	}
	if len(out) > 1 && !bytes.Equal(out[len(out)-1], now) {
		i := slices.IndexFunc(out, func(b []byte) bool { return bytes.Equal(b, now) })
		out = append(slices.Delete(out, i, i+1), now)
	}
	return out
}

// Crashes calls yield for what may be on the disk if the power went now, at most
// limit different states, until yield returns false. When there are more it takes
// nothing, everything, all but one thing, only one thing, and others at random;
// exhaustive tells that there were no more.
func (f *FS) Crashes(limit int, random *rand.Rand, yield func(*FS) bool) (exhaustive bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	choices := f.choices()
	seen := map[[sha256.Size]byte]bool{}
	total := 1
	for _, c := range choices {
		total = min(total*c.options(), limit+1)
	}
	emit := func(pick []int) bool {
		after := f.after(choices, pick)
		if d := after.digest(); !seen[d] {
			seen[d] = true
			return len(seen) <= limit && yield(after)
		}
		return true
	}
	if total <= limit {
		odometer(choices, emit)
		return true
	}
	for _, pick := range corners(choices) {
		if !emit(pick) {
			return false
		}
	}
	for range 2 * limit {
		pick := make([]int, len(choices))
		for i, c := range choices {
			pick[i] = random.IntN(c.options())
		}
		if !emit(pick) {
			return false
		}
	}
	return false
}

// odometer goes through every combination.
func odometer(choices []choice, emit func([]int) bool) {
	pick := make([]int, len(choices))
	for {
		if !emit(pick) {
			return
		}
		i := 0
		for ; i < len(pick); i++ {
			if pick[i]++; pick[i] < choices[i].options() {
				break
			}
			pick[i] = 0
		}
		if i == len(pick) {
			return
		}
	}
}

// corners are the combinations that break programs most often.
func corners(choices []choice) [][]int {
	all := make([]int, len(choices))
	for i, c := range choices {
		all[i] = c.options() - 1
	}
	out := [][]int{make([]int, len(choices)), all}
	for i, c := range choices {
		for o := range c.options() {
			only, but := make([]int, len(choices)), slices.Clone(all)
			only[i], but[i] = o, o
			out = append(out, but, only)
		}
	}
	return out
}

// after builds the file system that a crash with these picks leaves.
func (f *FS) after(choices []choice, pick []int) *FS {
	content := map[*node][]byte{}
	there := map[*node][]int{}
	for i, c := range choices {
		if c.content != nil {
			content[c.node] = c.content[pick[i]]
		} else if pick[i] == 1 {
			there[c.node] = append(there[c.node], c.change)
		}
	}
	made := map[*node]*node{}
	var build func(*node) *node
	build = func(n *node) *node {
		if m := made[n]; m != nil {
			return m
		}
		m := &node{kind: n.kind, target: n.target}
		made[n] = m
		if n.kind == regular {
			b, ok := content[n]
			if !ok {
				b = n.base
			}
			m.data = slices.Clone(b)
		}
		if n.kind == dir {
			m.entries = entries{}
			left := maps.Clone(n.durable)
			for _, i := range there[n] {
				n.changes[i].apply(left)
			}
			for name, child := range left {
				m.entries[name] = build(child)
			}
		}
		m.settle()
		return m
	}
	return &FS{root: build(f.root)}
}

// digest names a tree by what is in it; temporary names count like others.
func (f *FS) digest() [sha256.Size]byte {
	h := sha256.New()
	f.root.describe(h, "")
	return [sha256.Size]byte(h.Sum(nil))
}

func (n *node) describe(w io.Writer, at string) {
	for _, name := range sortedNames(n.entries) {
		c := n.entries[name]
		io.WriteString(w, at+"/"+name+"\x00"+string(rune('0'+c.kind))+c.target+"\x00")
		sum := sha256.Sum256(c.data)
		w.Write(sum[:])
		if c.kind == dir {
			c.describe(w, at+"/"+name)
		}
	}
}
