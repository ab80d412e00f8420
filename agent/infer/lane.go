package infer

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/agent/infer/frame"
)

// lanes are the pipes of a worker's runs. Their descriptors block: who asks waits
// for its answer on its own thread, without the poller and another goroutine in
// between, which cost more than the run of a small model. They end with the
// process, so a wait ends at the latest when the process is killed.
type lanes struct {
	request int
	answer  [frame.Frames]int
}

// newLanes returns our ends and the worker's, in the order of its descriptors.
func newLanes() (*lanes, []*os.File, error) {
	l := &lanes{request: -1}
	var theirs []*os.File
	for i := range 1 + frame.Frames {
		var p [2]int // read, write
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			l.close()
			closeAll(theirs)
			return nil, nil, fmt.Errorf("pipes of a worker: %w", err)
		}
		if i == 0 {
			l.request = p[1]
			theirs = append(theirs, os.NewFile(uintptr(p[0]), "requests"))
			l.answer = [frame.Frames]int{-1, -1}
			continue
		}
		l.answer[i-1] = p[0]
		theirs = append(theirs, os.NewFile(uintptr(p[1]), "answers"))
	}
	return l, theirs, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// finish tells the worker that no more requests come.
func (l *lanes) finish() {
	if l.request >= 0 {
		unix.Close(l.request)
		l.request = -1
	}
}

// close needs nobody to be waiting any more.
func (l *lanes) close() {
	l.finish()
	for i, fd := range l.answer {
		if fd > 0 {
			unix.Close(fd)
			l.answer[i] = -1
		}
	}
}

var (
	// errAnswer says that what came back is no answer to what was asked.
	errAnswer = errors.New("its answer is not to the request")
	// errUnsent says that the worker had closed its end before the request was sent.
	errUnsent = errors.New("the request was not sent")
)

// round sends a request and waits for its answer. io.EOF: the worker has closed
// its end under it.
func (l *lanes) round(m frame.Message) (frame.Message, error) {
	var b [frame.Size]byte
	m.Put(&b)
	for {
		_, err := unix.Write(l.request, b[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return frame.Message{}, errUnsent
		}
		break
	}
	for have := 0; have < len(b); {
		n, err := unix.Read(l.answer[m.Frame], b[have:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return frame.Message{}, io.EOF
		}
		have += n
	}
	r, _, err := frame.Decode(b[:])
	if err != nil || r.Kind != frame.Done || r.Frame != m.Frame || r.Sequence != m.Sequence {
		return frame.Message{}, errAnswer
	}
	return r, nil
}
