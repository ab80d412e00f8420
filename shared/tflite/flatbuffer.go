package tflite

import (
	"encoding/binary"
	"fmt"
	"math"
)

// reader walks a FlatBuffer without trusting one offset of it. The first fault
// sticks in err and every later read returns zero, so the code above reads
// straight on and asks once. FlatBuffers may share tables and vectors, and a
// small file could therefore unfold into a huge one: budget bounds the bytes
// that all decoded parts take together.
type reader struct {
	b      []byte
	budget int
	end    int // of the last byte that anything read lies on
	err    error
}

func newReader(b []byte) *reader {
	return &reader{b: b, budget: 8*len(b) + 1<<16}
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// take says whether [at, at+n) lies inside the file.
func (r *reader) take(at, n int) bool {
	if r.err != nil {
		return false
	}
	if at < 0 || n < 0 || at > len(r.b)-n {
		r.fail("offset %d+%d lies outside of the file of %d bytes", at, n, len(r.b))
		return false
	}
	r.end = max(r.end, at+n)
	return true
}

// aligned says whether a position is a multiple of n, as every number's is.
func (r *reader) aligned(at, n int) bool {
	if r.err == nil && at%n != 0 {
		r.fail("offset %d is no multiple of %d", at, n)
	}
	return r.err == nil
}

// spend counts n decoded bytes against the budget.
func (r *reader) spend(n int) bool {
	if r.err != nil {
		return false
	}
	if r.budget -= n; r.budget < 0 {
		r.fail("the file unfolds into more than eight times its size")
		return false
	}
	return true
}

func (r *reader) u8(at int) uint8 {
	if !r.take(at, 1) {
		return 0
	}
	return r.b[at]
}

func (r *reader) u16(at int) uint16 {
	if !r.take(at, 2) {
		return 0
	}
	return binary.LittleEndian.Uint16(r.b[at:])
}

func (r *reader) u32(at int) uint32 {
	if !r.take(at, 4) {
		return 0
	}
	return binary.LittleEndian.Uint32(r.b[at:])
}

func (r *reader) u64(at int) uint64 {
	if !r.take(at, 8) {
		return 0
	}
	return binary.LittleEndian.Uint64(r.b[at:])
}

// follow reads the unsigned offset at a place and returns where it points.
func (r *reader) follow(at int) int {
	o := r.u32(at)
	if r.err != nil {
		return 0
	}
	if o == 0 || uint64(at)+uint64(o) >= uint64(len(r.b)) {
		r.fail("offset at %d points outside of the file", at)
		return 0
	}
	return at + int(o)
}

// table is a FlatBuffer table whose vtable was found to lie inside the file.
type table struct {
	r      *reader
	pos    int // of the table
	vtable int // of its vtable; 0: an absent table, every field of which is absent
	fields int // entries of the vtable
	size   int // bytes of the table's inline part
}

func (r *reader) table(pos int) table {
	t := table{r: r}
	if !r.spend(16) || !r.aligned(pos, 4) || !r.take(pos, 4) {
		return t
	}
	vt := int64(pos) - int64(int32(r.u32(pos)))
	if vt < 0 || vt > int64(len(r.b))-4 {
		r.fail("table at %d: vtable lies outside of the file", pos)
		return t
	}
	vtable := int(vt)
	if !r.aligned(vtable, 2) {
		return t
	}
	bytes, size := int(r.u16(vtable)), int(r.u16(vtable+2))
	if bytes < 4 || bytes%2 != 0 || size < 4 {
		r.fail("table at %d: vtable of %d bytes for %d is malformed", pos, bytes, size)
		return t
	}
	if !r.take(vtable, bytes) || !r.take(pos, size) {
		return t
	}
	return table{r: r, pos: pos, vtable: vtable, fields: (bytes - 4) / 2, size: size}
}

// at returns the position of a field of n inline bytes, or 0 if it is absent.
func (t table) at(field, n int) int {
	if t.vtable == 0 || field >= t.fields || t.r.err != nil {
		return 0
	}
	o := int(t.r.u16(t.vtable + 4 + 2*field))
	if o == 0 {
		return 0
	}
	if o < 4 || o+n > t.size {
		t.r.fail("table at %d: field %d lies outside of the table", t.pos, field)
		return 0
	}
	if !t.r.aligned(t.pos+o, n) {
		return 0
	}
	return t.pos + o
}

func (t table) uint8(field int) uint8 {
	if at := t.at(field, 1); at != 0 {
		return t.r.u8(at)
	}
	return 0
}

func (t table) bool(field int) bool { return t.uint8(field) != 0 }

func (t table) uint32(field int) uint32 {
	if at := t.at(field, 4); at != 0 {
		return t.r.u32(at)
	}
	return 0
}

func (t table) int32(field int) int32 { return int32(t.uint32(field)) }

func (t table) uint64(field int) uint64 {
	if at := t.at(field, 8); at != 0 {
		return t.r.u64(at)
	}
	return 0
}

// child returns the table that a field points to; ok is false if it is absent.
func (t table) child(field int) (child table, ok bool) {
	at := t.at(field, 4)
	if at == 0 {
		return table{r: t.r}, false
	}
	child = t.r.table(t.r.follow(at))
	return child, t.r.err == nil
}

// vector returns the position and length of a field's vector of elements of
// the given width; the whole of it lies inside the file.
func (t table) vector(field, width int) (pos, n int) {
	at := t.at(field, 4)
	if at == 0 {
		return 0, 0
	}
	return t.r.vector(t.r.follow(at), width)
}

// vector returns the position of the elements and their number.
func (r *reader) vector(v, width int) (pos, n int) {
	if !r.aligned(v, 4) {
		return 0, 0
	}
	count := r.u32(v)
	if r.err != nil {
		return 0, 0
	}
	if uint64(count)*uint64(width) > uint64(len(r.b)-v-4) {
		r.fail("vector at %d: %d elements of %d bytes reach outside of the file", v, count, width)
		return 0, 0
	}
	if count > 0 && !r.aligned(v+4, width) || !r.take(v+4, int(count)*width) {
		return 0, 0
	}
	return v + 4, int(count)
}

// text checks a string: a vector of bytes with a zero behind it.
func (r *reader) text(v int) {
	pos, n := r.vector(v, 1)
	if end := r.u8(pos + n); r.err == nil && end != 0 {
		r.fail("string at %d does not end with a zero", v)
	}
}

// tables returns the tables of a field's vector.
func (t table) tables(field, limit int) []table {
	pos, n := t.vector(field, 4)
	if n > limit {
		t.r.fail("vector at %d: %d tables, at most %d are allowed", pos, n, limit)
		return nil
	}
	if n == 0 || !t.r.spend(n*40) {
		return nil
	}
	list := make([]table, 0, n)
	for i := range n {
		list = append(list, t.r.table(t.r.follow(pos+4*i)))
		if t.r.err != nil {
			return nil
		}
	}
	return list
}

func (t table) string(field int) string {
	pos, n := t.vector(field, 1)
	if n == 0 || !t.r.spend(n) {
		return ""
	}
	return string(t.r.b[pos : pos+n])
}

func (t table) int32s(field int) []int32 {
	pos, n := t.vector(field, 4)
	if n == 0 || !t.r.spend(4*n) {
		return nil
	}
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(t.r.u32(pos + 4*i))
	}
	return list
}

func (t table) int64s(field int) []int64 {
	pos, n := t.vector(field, 8)
	if n == 0 || !t.r.spend(8*n) {
		return nil
	}
	list := make([]int64, n)
	for i := range list {
		list[i] = int64(t.r.u64(pos + 8*i))
	}
	return list
}

func (t table) floats(field int) []float32 {
	pos, n := t.vector(field, 4)
	if n == 0 || !t.r.spend(4*n) {
		return nil
	}
	list := make([]float32, n)
	for i := range list {
		list[i] = math.Float32frombits(t.r.u32(pos + 4*i))
	}
	return list
}

func (t table) strings(field int) []string {
	pos, n := t.vector(field, 4)
	if n == 0 || !t.r.spend(20*n) {
		return nil
	}
	var list []string
	for i := range n {
		at, size := t.r.vector(t.r.follow(pos+4*i), 1)
		if !t.r.spend(size) {
			return nil
		}
		list = append(list, string(t.r.b[at:at+size]))
	}
	return list
}
