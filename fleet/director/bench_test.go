package director_test

import (
	"context"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

// BenchmarkSign makes the three files of a wish of two models and their runtime, as
// a change of one device does.
func BenchmarkSign(b *testing.B) {
	r := newRig(b)
	r.enrol("meter-1")
	r.wish("meter-1", item("digits", "1.0.0", 1), item("gauge", "1.0.0", 1))
	w, err := r.db.Wish(b.Context(), "meter-1")
	must(b, err)
	for b.Loop() {
		if _, err := r.Sign(b.Context(), w); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify refreshes a device that knows nothing but its first roots: all of
// both repositories. The file system is in memory, so that what is timed is the
// verification and not the disk.
func BenchmarkVerify(b *testing.B) {
	r := newRig(b)
	r.enrol("meter-1")
	r.wish("meter-1", item("digits", "1.0.0", 1), item("gauge", "1.0.0", 1))
	d := r.device("meter-1")
	d.refreshed()
	all, size := replay{files: d.last}, 0
	for _, f := range all.files {
		size += len(f.Bytes)
	}
	for b.Loop() {
		b.StopTimer()
		fresh := r.fresh(b)
		b.StartTimer()
		w, err := fresh.Refresh(context.Background(), all)
		if err != nil || len(w.Targets) != 3 {
			b.Fatal(w, err)
		}
	}
	b.ReportMetric(float64(size), "B")
	b.ReportMetric(float64(len(all.files)), "files")
}

// fresh is a client that has just been enrolled.
func (r *rig) fresh(b *testing.B) *trust.Client {
	fsys := crashfs.New()
	must(b, trust.Install(fsys, "/trust", [][]byte{r.ceremony.CatalogRoot}, [][]byte{r.ceremony.DirectorRoot}))
	c, err := trust.Open(trust.Config{FS: fsys, Dir: "/trust", Blobs: "/blobs", Device: "meter-1", Channel: channel, Now: r.Now})
	must(b, err)
	return c
}
