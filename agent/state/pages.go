package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
)

// The file format of bbolt, as far as it must be followed to know that following
// it is safe. bbolt itself panics on a damaged page, partly in goroutines of its
// own where nothing can recover, so it never sees a file that was not walked here.
const (
	pageHeader = 16
	element    = 16
	metaLength = 64

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = math.MaxUint64

	branchPage = 0x01
	leafPage   = 0x02
	metaPage   = 0x04

	bucketFlag = 0x01
)

// visit is called for every record of every bucket; slices alias the file.
type visit func(bucket, key, value []byte) error

// walker follows the tree of one file.
type walker struct {
	file []byte
	high uint64          // pages from here on were never written
	seen map[uint64]bool // a page has one parent
	do   visit
}

func damage(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// walk checks every page that bbolt would follow from the newest valid meta page
// and calls do for every record. It takes any bytes.
func walk(file []byte, do visit) error {
	if len(file) < 4*pageSize {
		return damage("%d bytes are too few", len(file))
	}
	root, high, err := newestMeta(file)
	if err != nil {
		return err
	}
	w := &walker{file: file, high: high, seen: map[uint64]bool{}, do: do}
	return w.tree(root, nil, nil, func(p page, i int) error {
		e := p.leaf(i)
		if e.flags != bucketFlag {
			return damage("a record outside of every bucket")
		}
		return w.bucket(e.key, e.value)
	})
}

// newestMeta returns root and high water mark of the commit that bbolt would use.
func newestMeta(file []byte) (root, high uint64, err error) {
	var newest uint64
	found := false
	ne := binary.NativeEndian
	for i := range 2 {
		p := file[i*pageSize:]
		m := p[pageHeader : pageHeader+metaLength]
		h := fnv.New64a()
		h.Write(m[:56])
		if ne.Uint32(m) != boltMagic || ne.Uint32(m[4:]) != boltVersion || ne.Uint64(m[56:]) != h.Sum64() {
			continue
		}
		if ne.Uint16(p[8:]) != metaPage || ne.Uint32(m[8:]) != pageSize || ne.Uint64(m[32:]) != noFreelist {
			return 0, 0, damage("meta page %d is not one of ours", i)
		}
		if txid := ne.Uint64(m[48:]); !found || txid > newest {
			found, newest = true, txid
			root, high = ne.Uint64(m[16:]), ne.Uint64(m[40:])
		}
	}
	if !found {
		return 0, 0, damage("no valid meta page")
	}
	return root, high, nil
}

// bucket walks one bucket: a page of its own or one inside its parent's value.
func (w *walker) bucket(name, value []byte) error {
	if len(value) < 16 {
		return damage("bucket %q: header", name)
	}
	record := func(p page, i int) error {
		e := p.leaf(i)
		if e.flags != 0 {
			return damage("bucket %q: a bucket in it", name)
		}
		return w.do(name, e.key, e.value)
	}
	root := binary.NativeEndian.Uint64(value)
	if root != 0 {
		return w.tree(root, nil, nil, record)
	}
	p, err := parsePage(value[16:])
	if err != nil || p.kind != leafPage {
		return damage("bucket %q: inline page", name)
	}
	return p.leaves(nil, nil, record)
}

// tree walks the page id and what is below it. Every key must be in [low, end);
// nil is no bound.
func (w *walker) tree(id uint64, low, end []byte, do func(page, int) error) error {
	p, err := w.page(id)
	if err != nil {
		return err
	}
	switch p.kind {
	case leafPage:
		return p.leaves(low, end, do)
	case branchPage:
	default:
		return damage("page %d: kind %#x", id, p.kind)
	}
	if p.count == 0 {
		return damage("page %d: an empty branch", id)
	}
	for i := range p.count {
		key, child := p.branch(i)
		// The first key of a branch may be above keys that came later.
		from, to := key, end
		if i == 0 {
			from = low
		}
		if i+1 < p.count {
			to, _ = p.branch(i + 1)
		}
		if i > 0 && !within(key, low, end) || to != nil && bytes.Compare(key, to) >= 0 {
			return damage("page %d: keys out of order", id)
		}
		if err := w.tree(child, from, to, do); err != nil {
			return err
		}
	}
	return nil
}

func within(key, low, end []byte) bool {
	return bytes.Compare(key, low) >= 0 && (end == nil || bytes.Compare(key, end) < 0)
}

// page returns a page whose elements are within the file.
func (w *walker) page(id uint64) (page, error) {
	pages := uint64(len(w.file) / pageSize)
	if id < 2 || id >= w.high || id >= pages {
		return page{}, damage("page %d is not in the file", id)
	}
	if w.seen[id] {
		return page{}, damage("page %d is used twice", id)
	}
	b := w.file[id*pageSize:]
	ne := binary.NativeEndian
	if ne.Uint64(b) != id {
		return page{}, damage("page %d calls itself %d", id, ne.Uint64(b))
	}
	more := uint64(ne.Uint32(b[12:]))
	if id+more >= w.high || id+more >= pages {
		return page{}, damage("page %d overflows the file", id)
	}
	for i := id; i <= id+more; i++ {
		if w.seen[i] {
			return page{}, damage("page %d is used twice", i)
		}
		w.seen[i] = true
	}
	p, err := parsePage(b[:(more+1)*pageSize])
	if err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	return p, nil
}

// page is a branch or leaf whose elements were checked to be inside it.
type page struct {
	b     []byte
	kind  uint16
	count int
}

type leafElement struct {
	flags      uint32
	key, value []byte
}

func parsePage(b []byte) (page, error) {
	if len(b) < pageHeader {
		return page{}, damage("header")
	}
	ne := binary.NativeEndian
	p := page{b: b, kind: ne.Uint16(b[8:]), count: int(ne.Uint16(b[10:]))}
	if p.kind != branchPage && p.kind != leafPage {
		return page{}, damage("kind %#x", p.kind)
	}
	if pageHeader+p.count*element > len(b) {
		return page{}, damage("%d elements", p.count)
	}
	for i := range p.count {
		at := pageHeader + i*element
		e := b[at:]
		var pos, size uint64
		if p.kind == leafPage {
			pos, size = uint64(ne.Uint32(e[4:])), uint64(ne.Uint32(e[8:]))+uint64(ne.Uint32(e[12:]))
		} else {
			pos, size = uint64(ne.Uint32(e)), uint64(ne.Uint32(e[4:]))
		}
		if uint64(at)+pos+size > uint64(len(b)) {
			return page{}, damage("element %d is not inside", i)
		}
	}
	return p, nil
}

func (p page) leaf(i int) leafElement {
	at := pageHeader + i*element
	e, ne := p.b[at:], binary.NativeEndian
	key := p.b[at+int(ne.Uint32(e[4:])):]
	k, v := ne.Uint32(e[8:]), ne.Uint32(e[12:])
	return leafElement{flags: ne.Uint32(e), key: key[:k:k], value: key[k : k+v : k+v]}
}

func (p page) branch(i int) (key []byte, child uint64) {
	at := pageHeader + i*element
	e, ne := p.b[at:], binary.NativeEndian
	k := ne.Uint32(e[4:])
	return p.b[at+int(ne.Uint32(e)):][:k:k], ne.Uint64(e[8:])
}

// leaves calls do for each element of a leaf, whose keys must rise within bounds.
func (p page) leaves(low, end []byte, do func(page, int) error) error {
	var last []byte
	for i := range p.count {
		key := p.leaf(i).key
		if !within(key, low, end) || i > 0 && bytes.Compare(last, key) >= 0 {
			return damage("keys out of order")
		}
		if err := do(p, i); err != nil {
			return err
		}
		last = key
	}
	return nil
}
