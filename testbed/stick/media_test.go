package stick

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/usb"
	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// medium is a file with a file system in it, mounted as a stick would be.
type medium struct {
	t          testing.TB
	image, dir string
	options    string
	fuse       bool // by fusefat: the kernel has no vfat
}

// mediums are the file systems that sticks come with, and how they are made.
var mediums = map[string][]string{
	"vfat": {"mkfs.vfat", "-F", "32"},
	"ext4": {"mkfs.ext4", "-q", "-F"},
}

// newMedium makes one of 40 MB. It is nil, after saying so, where this machine
// cannot mount it.
func newMedium(t testing.TB, kind string) *medium {
	t.Helper()
	m := &medium{t: t, image: filepath.Join(t.TempDir(), "image"), dir: t.TempDir(), options: "loop,nosuid,nodev,noexec"}
	must(t, os.WriteFile(m.image, nil, 0o600))
	must(t, os.Truncate(m.image, 40<<20))
	line := append([]string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}, mediums[kind]...)
	if out, err := exec.Command("env", append(line, m.image)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", mediums[kind][0], err, out)
	}
	if os.Getuid() != 0 {
		t.Logf("NOT PROVEN HERE: %s on a real medium: only root mounts", kind)
		return nil
	}
	out, err := m.mount()
	if kind == "vfat" && err != nil && strings.Contains(out, "unknown filesystem type") {
		if _, none := exec.LookPath("fusefat"); none == nil {
			m.fuse = true
			out, err = m.mount()
		}
	}
	if err != nil {
		if strings.Contains(out, "unknown filesystem type") || strings.Contains(out, "permission denied") || strings.Contains(out, "loop device") {
			t.Logf("NOT PROVEN HERE: %s on a real medium: %s", kind, strings.TrimSpace(out))
			return nil
		}
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() { syscall.Unmount(m.dir, syscall.MNT_DETACH) })
	return m
}

func (m *medium) mount() (string, error) {
	cmd := exec.Command("mount", "-o", m.options, m.image, m.dir)
	if m.fuse {
		how := "rw+"
		if strings.HasSuffix(m.options, ",ro") {
			how = "ro"
		}
		cmd = exec.Command("fusefat", "-o", how, m.image, m.dir)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// again takes the medium out and plugs it in.
func (m *medium) again(options string) {
	m.t.Helper()
	must(m.t, syscall.Unmount(m.dir, 0))
	m.options = options
	if out, err := m.mount(); err != nil {
		m.t.Fatalf("mount: %v: %s", err, out)
	}
}

// fill leaves no room on the medium.
func (m *medium) fill() {
	m.t.Helper()
	f, err := os.Create(filepath.Join(m.dir, "holiday.mov"))
	must(m.t, err)
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err = f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else {
			must(m.t, err)
		}
	}
	must(m.t, f.Sync())
}

// TestRealMedia takes sticks out and home on real file systems: whole, full,
// read-only, and with the medium failing in the middle of a blob.
func TestRealMedia(t *testing.T) {
	for kind := range mediums {
		t.Run(kind, func(t *testing.T) {
			m := newMedium(t, kind)
			if m == nil {
				return
			}
			s := newServer(t)
			d := s.enrol("meter-1")
			s.wish(d.id, "1.1.0")
			x, err := s.lockboxes.Export(t.Context(), fleet.LockboxRequest{By: "anna"})
			must(t, err)
			s.write(m.dir, x)
			m.again("loop,nosuid,nodev,noexec,ro")
			stick := m.takes(d, usb.CodeReadOnly)
			if stick == nil {
				return
			}
			m.again("loop,nosuid,nodev,noexec")
			m.takes(d, "")
			m.again("loop,nosuid,nodev,noexec,ro")
			path := filepath.Join(m.dir, wire.LockboxDir, wire.LockboxReceipts, wire.LockboxName(d.who().Fleet, d.id))
			b, err := os.ReadFile(path)
			must(t, err)
			if got, err := s.in.Receipt(t.Context(), b); err != nil || got.Lockbox != x.ID {
				t.Errorf("the receipt at home: %+v, %v", got, err)
			}
			if m.fuse { // which calls a full medium forbidden, and fails by a signal
				t.Log("NOT PROVEN HERE: full and failing vfat media: the kernel has no vfat, fusefat mounted it")
				return
			}
			m.again("loop,nosuid,nodev,noexec")
			m.fill()
			m.takes(d, usb.CodeFull)
			if left, err := os.ReadFile(path); err != nil || string(left) != string(b) {
				t.Errorf("the receipt before is gone: %v", err)
			}
			must(t, os.Remove(filepath.Join(m.dir, "holiday.mov")))
			m.takes(d, "")
			m.fails(d)
		})
	}
}

// takes has a device that never saw the stick take everything from it, and write a
// receipt that is larger than what is left of a full medium.
func (m *medium) takes(d *device, want string) *usb.Stick {
	m.t.Helper()
	fresh := *d
	fresh.dir = m.t.TempDir()
	fresh.open(durable.OS{}, fresh.dir)
	stick, err := fresh.plug(m.dir)
	must(m.t, err)
	must(m.t, take(fresh.Client, stick))
	d.Client = fresh.Client
	r := d.runs("1.1.0", d.note().Nonce)
	var queued []wire.ReceiptBatch
	if want == usb.CodeFull {
		big := make([]byte, 100<<10)
		queued = append(queued, batch(wire.KindEvent, d.record(&wire.Event{Type: "big", Detail: hex.EncodeToString(big)})))
	}
	if err := stick.WriteReceipt(d.receipt(d.note().ID, &r, queued...)); usb.Code(err) != want {
		m.t.Errorf("the receipt: %v, want %q", err, want)
	}
	return stick
}

// breaking is a device's disk; at the first block the stick's medium fails.
type breaking struct {
	m    *medium
	done bool
}

func (b *breaking) WriteAt(p []byte, _ int64) (int, error) {
	if !b.done {
		b.done = true
		must(b.m.t, os.Truncate(b.m.image, 0))
	}
	return len(p), nil
}

var _ io.WriterAt = (*breaking)(nil)

// fails breaks the medium while a blob is copied.
func (m *medium) fails(d *device) {
	m.t.Helper()
	content := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(content)
	b := trust.Blob{Digest: sha256.Sum256(content), Length: int64(len(content))}
	must(m.t, os.WriteFile(filepath.Join(m.dir, wire.LockboxDir, wire.LockboxBlobs, hex.EncodeToString(b.Digest[:])), content, 0o644))
	m.again("loop,nosuid,nodev,noexec")
	stick, err := usb.Open(m.dir, d.who())
	must(m.t, err)
	err = stick.Fetch(context.Background(), b, []trust.Range{{Length: b.Length}}, &breaking{m: m})
	if usb.Code(err) != usb.CodeGone {
		m.t.Errorf("a medium that fails: %v, want %s", err, usb.CodeGone)
	}
	if err := stick.WriteReceipt([]byte("one more")); err == nil {
		m.t.Error("a receipt is durable on a medium that failed")
	} else {
		m.t.Logf("the receipt on a medium that failed: %v", err)
	}
}
