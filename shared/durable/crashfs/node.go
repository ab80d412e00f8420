package crashfs

import (
	"io/fs"
	"maps"
	"time"
)

type kind int

const (
	regular kind = iota
	dir
	link
)

// node is an inode: what the program sees, what the disk holds for sure, and the
// changes in between.
type node struct {
	kind   kind
	target string // of a link; durable with the entry that names it

	data  []byte // of a file
	base  []byte
	edits []edit

	entries entries // of a directory
	durable entries
	changes []change
}

// entries maps names to nodes. In a change nil stands for a name taken away.
type entries map[string]*node

// edit is a write or a truncation that may not have reached the disk.
type edit struct {
	off  int64
	data []byte
	cut  bool // truncate to off
	lost bool // a sync failed: never for sure any more
}

// change is one atomic change of a directory.
type change struct {
	set  entries
	lost bool
}

func newDir() *node { return &node{kind: dir, entries: entries{}, durable: entries{}} }

func (e edit) apply(b []byte) []byte {
	end := e.off + int64(len(e.data))
	for int64(len(b)) < end || e.cut && int64(len(b)) < e.off {
		b = append(b, 0)
	}
	copy(b[e.off:], e.data)
	if e.cut {
		b = b[:e.off]
	}
	return b
}

func (n *node) write(e edit) {
	n.data = e.apply(n.data)
	n.edits = append(n.edits, e)
}

func (n *node) change(set entries) {
	c := change{set: set}
	c.apply(n.entries)
	n.changes = append(n.changes, c)
}

func (c change) apply(to entries) {
	for name, n := range c.set {
		if n == nil {
			delete(to, name)
		} else {
			to[name] = n
		}
	}
}

// sync makes durable what no failed sync has lost.
func (n *node) sync() {
	var edits []edit
	for _, e := range n.edits {
		if e.lost {
			edits = append(edits, e)
			continue
		}
		n.base = e.apply(append([]byte(nil), n.base...))
	}
	var changes []change
	for _, c := range n.changes {
		if c.lost {
			changes = append(changes, c)
			continue
		}
		c.apply(n.durable)
	}
	n.edits, n.changes = edits, changes
}

// lose is a sync that failed: the kernel takes the pages for clean.
func (n *node) lose() {
	for i := range n.edits {
		n.edits[i].lost = true
	}
	for i := range n.changes {
		n.changes[i].lost = true
	}
}

func (n *node) settle() {
	n.base, n.edits = append([]byte(nil), n.data...), nil
	n.durable, n.changes = maps.Clone(n.entries), nil
}

// universe lists every node that some crash could show, n first.
func (n *node) universe() []*node {
	seen := map[*node]bool{}
	var out []*node
	var visit func(*node)
	visit = func(n *node) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		out = append(out, n)
		for _, set := range append([]entries{n.durable, n.entries}, sets(n.changes)...) {
			for _, name := range sortedNames(set) {
				visit(set[name])
			}
		}
	}
	visit(n)
	return out
}

func sets(changes []change) []entries {
	out := make([]entries, len(changes))
	for i, c := range changes {
		out[i] = c.set
	}
	return out
}

func (n *node) names(at string, out *[]string) {
	for name, child := range n.entries {
		p := at + "/" + name
		if child.kind == dir {
			*out = append(*out, p+"/")
			child.names(p, out)
			continue
		}
		*out = append(*out, p)
	}
}

// info implements fs.FileInfo.
type info struct {
	name string
	node *node
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return int64(len(i.node.data)) }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.node.kind == dir }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	switch i.node.kind {
	case dir:
		return fs.ModeDir | 0o755
	case link:
		return fs.ModeSymlink | 0o777
	}
	return 0o644
}
