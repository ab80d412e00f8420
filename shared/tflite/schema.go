package tflite

import (
	_ "embed"
	"strings"
	"sync"
)

// schemaText holds the layout of every table: its name, then its fields in order.
// "4" is a number of 4 bytes, "s" a string, a name a table, "-" a field that is no
// longer used; "[" makes a vector of it. A line that begins with "|" is a union: the
// tables that it may hold, from 1; such a field's kind is the number before it.
//
//go:embed schema.txt
var schemaText string

// layout is the schema, parsed.
type layout struct {
	tables map[string][]field
	unions map[string][]string
}

// field is one field of a table.
type field struct {
	vector bool
	width  int    // of a number; 0: not a number
	text   bool   // a string
	table  string // a table's name
	union  string // a union's name
}

var schema = sync.OnceValue(func() *layout {
	l := &layout{tables: map[string][]field{}, unions: map[string][]string{}}
	for line := range strings.Lines(schemaText) {
		words := strings.Fields(line)
		if name, ok := strings.CutPrefix(words[0], "|"); ok {
			l.unions[name] = words[1:]
			continue
		}
		var fields []field
		for _, w := range words[1:] {
			fields = append(fields, parseField(w))
		}
		l.tables[words[0]] = fields
	}
	return l
})

func parseField(w string) field {
	var f field
	w, f.vector = strings.CutPrefix(w, "[")
	switch {
	case w == "-":
	case w == "s":
		f.text = true
	case w[0] >= '1' && w[0] <= '8':
		f.width = int(w[0] - '0')
	case w[0] == '|':
		f.union = w[1:]
	default:
		f.table = w
	}
	return f
}

// verify checks every part of a table by the schema, those that the reader does not
// look at included: what the runtime would read lies in the file, is aligned, and
// strings end with a zero. Tables of the schema hold no table of their own kind, so
// the depth is that of the schema; the reader's budget bounds the number.
func (l *layout) verify(t table, name string) {
	for i, f := range l.tables[name] {
		if t.r.err != nil {
			return
		}
		switch {
		case f.vector:
			l.verifyVector(t, i, f)
		case f.width > 0:
			t.at(i, f.width)
		case f.text:
			if at := t.at(i, 4); at != 0 {
				t.r.text(t.r.follow(at))
			}
		case f.table != "":
			if c, ok := t.child(i); ok {
				l.verify(c, f.table)
			}
		case f.union != "":
			c, ok := t.child(i)
			if name := l.member(t, i, f.union); ok && name != "" {
				l.verify(c, name)
			}
		}
	}
}

func (l *layout) verifyVector(t table, i int, f field) {
	if f.width > 0 {
		t.vector(i, f.width)
		return
	}
	pos, n := t.vector(i, 4)
	if !t.r.spend(4 * n) {
		return
	}
	for k := range n {
		at := t.r.follow(pos + 4*k)
		if t.r.err != nil {
			return
		}
		if f.text {
			t.r.text(at)
		} else {
			l.verify(t.r.table(at), f.table)
		}
	}
}

// member returns the name of the table that a field with a union holds; "" if it
// holds none.
func (l *layout) member(t table, i int, union string) string {
	kind, members := int(t.uint8(i-1)), l.unions[union]
	if kind > len(members) {
		t.r.fail("table at %d: a %s of kind %d, which the schema does not have", t.pos, union, kind)
	}
	if kind == 0 || t.r.err != nil {
		return ""
	}
	return members[kind-1]
}
