package oip

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// window is a part of a shared memory region that a request names.
type window struct {
	region       string
	offset, size int64
	there        bool
}

// fields adds the parameters that name a window.
func (w *window) fields(more fields) fields {
	more["shared_memory_region"] = func(d *json.Decoder) error { w.there = true; return text(&w.region)(d) }
	more["shared_memory_offset"] = value(&w.offset, "a number of bytes")
	more["shared_memory_byte_size"] = value(&w.size, "a number of bytes")
	return more
}

func (w *window) orNil() *window {
	if !w.there {
		return nil
	}
	return w
}

const (
	memoryDir  = "/dev/shm"
	maxRegions = 64
)

// regions are the files of shared memory that clients have registered. They are
// read and written by offset, never mapped: a client that cuts its file short
// gets an error, and the agent no SIGBUS.
type regions struct {
	mu sync.RWMutex
	of map[string]*region
}

type region struct {
	Name   string `json:"name"`
	Key    string `json:"key"`
	Offset int64  `json:"offset"`
	Size   int64  `json:"byte_size"`
	file   *os.File
}

func newRegions() *regions { return &regions{of: map[string]*region{}} }

var errNoMemory = errors.New("shared memory is not allowed on this device: set shared_memory in agent.yaml")

// register opens a region. A name that is there keeps what it has unless it is the
// same.
func (m *regions) register(g region) error {
	key := strings.TrimPrefix(g.Key, "/")
	if g.Name == "" || len(g.Name) > 256 || key == "" || strings.ContainsAny(key, "/\x00") || g.Offset < 0 || g.Size <= 0 {
		return errors.New("a name, a key without slashes, an offset from 0 on and a byte_size above 0 are wanted")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.of[g.Name]; have != nil {
		return fmt.Errorf("region %q is registered: unregister it first", g.Name)
	}
	if len(m.of) >= maxRegions {
		return fmt.Errorf("%d regions are registered: unregister one first", maxRegions)
	}
	dir, err := os.OpenRoot(memoryDir)
	if err != nil {
		return fmt.Errorf("open shared memory: %w", err)
	}
	defer dir.Close()
	if st, err := dir.Lstat(key); err != nil || !st.Mode().IsRegular() { // a pipe would block
		return fmt.Errorf("there is no shared memory of key %q", g.Key)
	}
	f, err := dir.OpenFile(key, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("shared memory of key %q cannot be opened for reading and writing", g.Key)
	}
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || g.Offset > st.Size() || g.Size > st.Size()-g.Offset {
		f.Close()
		return fmt.Errorf("shared memory of key %q does not hold %d bytes at %d", g.Key, g.Size, g.Offset)
	}
	g.file = f
	m.of[g.Name] = &g
	return nil
}

// unregister closes a region; of an empty name, all of them. One that is not there
// is no error.
func (m *regions) unregister(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, g := range m.of {
		if name == "" || n == name {
			g.file.Close()
			delete(m.of, n)
		}
	}
}

func (m *regions) list(name string) ([]region, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := []region{}
	for n, g := range m.of {
		if name == "" || n == name {
			out = append(out, *g)
		}
	}
	if name != "" && len(out) == 0 {
		return nil, fmt.Errorf("no region %.80q is registered", name)
	}
	slices.SortFunc(out, func(a, b region) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// use runs do on a window's file at its place; do must not call back.
func (m *regions) use(w *window, size int64, do func(f *os.File, at int64) error) error {
	if m == nil {
		return errNoMemory
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	g := m.of[w.region]
	switch {
	case g == nil:
		return fmt.Errorf("no region %.80q is registered", w.region)
	case w.offset < 0 || w.size < 0 || w.offset > g.Size || w.size > g.Size-w.offset:
		return fmt.Errorf("%d bytes at %d are not inside region %q of %d bytes", w.size, w.offset, w.region, g.Size)
	case size > w.size:
		return fmt.Errorf("%d bytes do not fit the %d of region %q that are given", size, w.size, w.region)
	}
	return do(g.file, g.Offset+w.offset)
}

// fill reads the inputs that lie in regions.
func (m *regions) fill(r *request, c *bundle.Contract) error {
	left := bodyLimit(c)
	for i := range r.inputs {
		in := &r.inputs[i]
		if in.memory == nil {
			continue
		}
		if in.data != nil {
			return fmt.Errorf("input %q: data or a shared memory region, not both", in.name)
		}
		if in.memory.size > left {
			return fmt.Errorf("input %q: %d bytes are more than this model's inputs need", in.name, in.memory.size)
		}
		left -= max(in.memory.size, 0)
		err := m.use(in.memory, 0, func(f *os.File, at int64) error {
			in.raw = make([]byte, in.memory.size)
			_, err := f.ReadAt(in.raw, at)
			return err
		})
		if err != nil {
			return fmt.Errorf("input %q: %w", in.name, err)
		}
	}
	return nil
}

// write puts an output into a window.
func (m *regions) write(w *window, b []byte) error {
	return m.use(w, int64(len(b)), func(f *os.File, at int64) error {
		st, err := f.Stat()
		if err != nil || st.Size() < at+int64(len(b)) { // writing would make it longer
			return fmt.Errorf("region %q has been cut short", w.region)
		}
		_, err = f.WriteAt(b, at)
		return err
	})
}

// memoryRoutes serves the system shared memory extension, and says of CUDA's that
// it is not here.
func (f *front) memoryRoutes(mux *http.ServeMux) {
	allowed := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if f.memory == nil {
				fail(w, http.StatusBadRequest, errNoMemory)
				return
			}
			h(w, r)
		}
	}
	const base = "/v2/systemsharedmemory"
	status := func(w http.ResponseWriter, r *http.Request) {
		list, err := f.memory.list(r.PathValue("name"))
		if err != nil {
			fail(w, http.StatusBadRequest, err)
			return
		}
		reply(w, http.StatusOK, list)
	}
	unregister := func(w http.ResponseWriter, r *http.Request) {
		f.memory.unregister(r.PathValue("name"))
		w.WriteHeader(http.StatusOK)
	}
	for _, path := range []string{base, base + "/region/{name}"} {
		mux.HandleFunc("GET "+path+"/status", allowed(status))
		mux.HandleFunc("POST "+path+"/unregister", allowed(unregister))
	}
	mux.HandleFunc("POST "+base+"/region/{name}/register", allowed(f.registerRegion))
	mux.HandleFunc("GET /v2/cudasharedmemory/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, []region{}) })
	mux.HandleFunc("POST /v2/cudasharedmemory/unregister", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("/v2/cudasharedmemory/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusBadRequest, errors.New("there is no CUDA memory on this device"))
	})
}

func (f *front) registerRegion(w http.ResponseWriter, r *http.Request) {
	b, done, err := f.body(w, r, 4<<10)
	if err != nil {
		refuse(w, err)
		return
	}
	defer done()
	g := region{Name: r.PathValue("name")}
	err = readJSON(b, fields{"key": text(&g.Key), "offset": value(&g.Offset, "a number of bytes"), "byte_size": value(&g.Size, "a number of bytes")})
	if err == nil {
		err = f.memory.register(g)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("register region %.80q: %w", g.Name, err))
		return
	}
	w.WriteHeader(http.StatusOK)
}
