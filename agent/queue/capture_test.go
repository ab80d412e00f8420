package queue_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/queue"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// TestCaptureQueue opens the fourth queue: it takes the epoch of the others, draws a
// new one when it was lost, and Clear leaves nothing on the disk.
func TestCaptureQueue(t *testing.T) {
	dir := t.TempDir()
	open := func() *queue.Set {
		t.Helper()
		s, err := queue.OpenSet(durable.OS{}, dir, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.OpenCapture(1 << 20); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	epoch := s.Epoch()
	for range 3 {
		if _, err := s.Capture.Append(make([]byte, 50_000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Capture.Ack(epoch, 1); err != nil {
		t.Fatal(err)
	}
	if size := s.Capture.Size(); size < 100_000 {
		t.Errorf("%d bytes", size)
	}
	if n, err := s.Capture.Clear(); n != 2 || err != nil {
		t.Errorf("%d were not sent, %v", n, err)
	}
	if n, err := s.Capture.Clear(); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	var left int64
	entries, err := os.ReadDir(filepath.Join(dir, "capture"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		left += info.Size()
	}
	if left > 100 {
		t.Errorf("%d bytes are left", left)
	}
	if seq, err := s.Capture.Append([]byte{1}); seq != 4 || err != nil {
		t.Errorf("number %d after that, %v", seq, err)
	}
	if records, err := s.Capture.Next(9, 1000); len(records) != 1 || err != nil {
		t.Errorf("%d records, %v", len(records), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = open(); s.Epoch() != epoch || s.Capture.State().Last != 4 {
		t.Errorf("opened again: epoch %x, %+v", s.Epoch(), s.Capture.State())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "capture")); err != nil {
		t.Fatal(err)
	}
	if s = open(); s.Epoch() == epoch {
		t.Error("the queue was lost and numbers come again")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
