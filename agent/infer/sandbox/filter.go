package sandbox

import "golang.org/x/sys/unix"

// What becomes of a call. A call that no worker has a reason for ends the
// process, whose death then has this as its reason; one that a newer C library
// might try is answered as by a kernel that does not have it.
const (
	permit = unix.SECCOMP_RET_ALLOW
	kill   = unix.SECCOMP_RET_KILL_PROCESS
)

func refuse(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

// test compares the low 32 bits of an argument, masked, with values; it passes
// when one is equal. Without values it wants 0. A pointer's upper half must be 0
// too.
type test struct {
	arg     uint32
	mask    uint32 // 0: all bits
	values  []uint32
	pointer bool
}

// way is a list of tests that all pass.
type way []test

// call is a rule for one system call: permitted when one of its ways holds,
// always when it has none and no other verdict.
type call struct {
	nr        uint32
	ways      []way
	otherwise uint32 // 0: permit
}

// Offsets in struct seccomp_data.
const (
	offNR   = 0
	offArch = 4
	offArgs = 16
)

const (
	opLoad   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opAtOver = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	opAnd    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opReturn = unix.BPF_RET | unix.BPF_K
)

// compile makes a filter of rules, of calls that end the process, and of what
// becomes of all others. Calls of another architecture's table end the process.
func compile(rules []call, deadly []uint32, other uint32) []unix.SockFilter {
	p := []unix.SockFilter{
		{Code: opLoad, K: offArch},
		{Code: opEqual, Jt: 1, K: auditArch},
		{Code: opReturn, K: kill},
		{Code: opLoad, K: offNR},
		{Code: opAtOver, Jf: 1, K: foreignCalls},
		{Code: opReturn, K: kill},
	}
	for _, c := range rules {
		body := c.body()
		p = append(p, unix.SockFilter{Code: opEqual, Jf: uint8(len(body)), K: c.nr})
		p = append(p, body...)
	}
	for _, nr := range deadly {
		p = append(p, unix.SockFilter{Code: opEqual, Jf: 1, K: nr}, unix.SockFilter{Code: opReturn, K: kill})
	}
	return append(p, unix.SockFilter{Code: opReturn, K: other})
}

// body ends in a verdict whatever the arguments are.
func (c call) body() []unix.SockFilter {
	var b []unix.SockFilter
	for _, w := range c.ways {
		b = append(b, w.code()...)
	}
	verdict := c.otherwise
	if verdict == 0 {
		verdict = permit
	}
	return append(b, unix.SockFilter{Code: opReturn, K: verdict})
}

// code permits when all tests pass and else goes on behind itself.
func (w way) code() []unix.SockFilter {
	b := []unix.SockFilter{{Code: opReturn, K: permit}}
	for i := len(w) - 1; i >= 0; i-- {
		b = append(w[i].code(len(b)), b...)
	}
	return b
}

// code goes on behind itself when the test passes, else over skip more.
func (t test) code(skip int) []unix.SockFilter {
	values := t.values
	if len(values) == 0 {
		values = []uint32{0}
	}
	var b []unix.SockFilter
	n := len(values)
	for i, v := range values {
		f := unix.SockFilter{Code: opEqual, Jt: uint8(n - 1 - i), K: v}
		if i == n-1 {
			f.Jf = uint8(skip)
		}
		b = append(b, f)
	}
	if t.mask != 0 {
		b = append([]unix.SockFilter{{Code: opAnd, K: t.mask}}, b...)
	}
	b = append([]unix.SockFilter{{Code: opLoad, K: offArgs + 8*t.arg}}, b...)
	if t.pointer {
		b = append([]unix.SockFilter{
			{Code: opLoad, K: offArgs + 8*t.arg + 4},
			{Code: opEqual, Jf: uint8(len(b) + skip)},
		}, b...)
	}
	return b
}
