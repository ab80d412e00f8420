// Package frame is what agent and worker share: messages of 32 bytes, and tensor
// frames in memory that both have mapped. A SEQPACKET socket carries the start and
// signs of life; runs go over pipes, one to the worker and one back for each frame,
// so that who asked reads its own answer. The agent owns the memory and believes
// nothing that the worker writes but the tensors themselves, at the places that
// the agent laid out.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Size of a message in bytes. Layout, little endian:
//
//	0  1  kind
//	1  3  zero
//	4  4  frame
//	8  8  sequence
//	16 8  microseconds: of the run, or of the start
//	24 4  status: 0 done, else the runtime's
//	28 4  zero
const Size = 32

// Kind of a message.
type Kind uint8

// Kinds. Tensors carries JSON behind the message; Memory carries the descriptor
// of the frames.
const (
	Tensors   Kind = 1 // worker: the model is compiled, these are its tensors
	Memory    Kind = 2 // agent: map this
	Ready     Kind = 3 // worker: mapped, and run once
	Run       Kind = 4 // agent: run on a frame
	Done      Kind = 5 // worker: ran
	Heartbeat Kind = 6 // worker: alive, whatever the model does
	Failed    Kind = 7 // worker: cannot start; a text follows
)

// Message is one message.
type Message struct {
	Kind     Kind
	Frame    uint32
	Sequence uint64
	Micros   uint64
	Status   int32
}

// MaxText bounds what follows a message.
const MaxText = 64 << 10

// ErrMalformed is wrapped by decoding errors.
var ErrMalformed = errors.New("malformed frame message")

// Encode returns the message's bytes.
func (m Message) Encode() []byte {
	b := make([]byte, Size)
	m.Put((*[Size]byte)(b))
	return b
}

// Put writes the message's bytes.
func (m Message) Put(b *[Size]byte) {
	*b = [Size]byte{byte(m.Kind)}
	binary.LittleEndian.PutUint32(b[4:], m.Frame)
	binary.LittleEndian.PutUint64(b[8:], m.Sequence)
	binary.LittleEndian.PutUint64(b[16:], m.Micros)
	binary.LittleEndian.PutUint32(b[24:], uint32(m.Status))
}

// Decode reads a message and returns what follows it.
func Decode(b []byte) (Message, []byte, error) {
	if len(b) < Size || len(b) > Size+MaxText || b[0] < byte(Tensors) || b[0] > byte(Failed) {
		return Message{}, nil, fmt.Errorf("%d bytes: %w", len(b), ErrMalformed)
	}
	return Message{
		Kind: Kind(b[0]), Frame: binary.LittleEndian.Uint32(b[4:]), Sequence: binary.LittleEndian.Uint64(b[8:]),
		Micros: binary.LittleEndian.Uint64(b[16:]), Status: int32(binary.LittleEndian.Uint32(b[24:])),
	}, b[Size:], nil
}

// Tensor is one input or output as the worker found it.
type Tensor struct {
	Name  string    `json:"name"`
	DType string    `json:"dtype"` // Open Inference Protocol
	Shape []int     `json:"shape"`
	Bytes int       `json:"bytes"` // of the tensor
	Room  int       `json:"room"`  // that the runtime wants, at least Bytes
	Scale []float32 `json:"scale,omitempty"`
	Zero  []int64   `json:"zero,omitempty"`
}

// Model is what the worker tells in Tensors.
type Model struct {
	ABI     string   `json:"abi"`
	Inputs  []Tensor `json:"inputs"`
	Outputs []Tensor `json:"outputs"`
}

// Frames is how many frames a worker has: one can be filled while the other runs.
const Frames = 2

// Descriptors of a worker.
const (
	ControlFD = 3 // socket; its end is the end of the worker
	ModelFD   = 4
	RequestFD = 5 // pipe of Run
	AnswerFD  = 6 // pipe of Done for frame 0; those of the others follow
	LibraryFD = AnswerFD + Frames
	CacheFD   = LibraryFD + 1
)

const page = 4096

// maxMemory bounds the frames of one worker.
const maxMemory = 1 << 30

// Layout is where each tensor of each frame lies.
type Layout struct {
	Bytes   int // of the whole memory
	stride  int
	offsets []int // inputs, then outputs, within a frame
	model   *Model
}

// NewLayout lays page-aligned tensors out.
func NewLayout(m *Model) (*Layout, error) {
	l := &Layout{model: m}
	at := 0
	for _, t := range append(append([]Tensor{}, m.Inputs...), m.Outputs...) {
		if t.Bytes < 0 || t.Room < t.Bytes || t.Room > maxMemory {
			return nil, fmt.Errorf("tensor %q of %d bytes in %d: %w", t.Name, t.Bytes, t.Room, ErrMalformed)
		}
		l.offsets = append(l.offsets, at)
		at += (max(t.Room, 1) + page - 1) / page * page
		if at > maxMemory {
			return nil, fmt.Errorf("tensors of more than %d bytes: %w", maxMemory, ErrMalformed)
		}
	}
	l.stride = at
	l.Bytes = at * Frames
	return l, nil
}

// Split returns the tensors of a frame of mem, each as long as its Room.
func (l *Layout) Split(mem []byte, frame int) (in, out [][]byte) {
	base := frame * l.stride
	n := len(l.model.Inputs)
	for i, off := range l.offsets {
		var t Tensor
		if i < n {
			t = l.model.Inputs[i]
		} else {
			t = l.model.Outputs[i-n]
		}
		b := mem[base+off : base+off+max(t.Room, 1) : base+off+max(t.Room, 1)]
		if i < n {
			in = append(in, b)
		} else {
			out = append(out, b)
		}
	}
	return in, out
}
