package lab

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy passes bytes between devices and the server, counts them, and cuts or
// holds connections when it is told to.
type Proxy struct {
	l  net.Listener
	to string

	wg     sync.WaitGroup
	mu     sync.Mutex
	free   *sync.Cond // what is held may go on
	conns  map[*pipe]bool
	opened int
	ended  int
	up     int64   // bytes towards the server
	down   int64   // bytes towards devices
	asking bool    // the last bytes went up
	turns  int     // how often the line turned from up to down
	cuts   []int64 // of down, rising
	held   bool
	// each, when set, says after how many bytes towards the device its n-th
	// connection is cut; 0: not.
	each func(n int) int64
}

// pipe is one connection through the proxy.
type pipe struct {
	device, server *net.TCPConn
	left           int64 // bytes down until it is cut; 0: not bounded
}

// NewProxy listens in front of a server until the test ends.
func NewProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{l: l, to: to, conns: map[*pipe]bool{}}
	p.free = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.Hold(false)
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Addr is where devices connect.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", p.to)
		if err != nil {
			c.Close()
			continue
		}
		x := &pipe{device: c.(*net.TCPConn), server: s.(*net.TCPConn)}
		p.mu.Lock()
		p.conns[x] = true
		p.opened++
		if p.each != nil {
			x.left = p.each(p.opened)
		}
		p.mu.Unlock()
		p.wg.Go(func() { io.Copy(upward{x.server, p}, x.device); p.end(x) })
		p.wg.Go(func() { p.downward(x); p.end(x) })
	}
}

// upward counts what goes to the server.
type upward struct {
	to io.Writer
	p  *Proxy
}

func (u upward) Write(b []byte) (int, error) {
	u.p.mu.Lock()
	u.p.up += int64(len(b))
	u.p.asking = true
	u.p.mu.Unlock()
	return u.to.Write(b)
}

// downward passes bytes to the device up to the next cut.
func (p *Proxy) downward(x *pipe) {
	b := make([]byte, 16<<10)
	for {
		n, err := x.server.Read(b)
		n, cut := p.pass(x, n)
		if _, werr := x.device.Write(b[:n]); cut || errors.Join(err, werr) != nil {
			return
		}
	}
}

// pass waits while things are held, counts, and says how much goes before a cut.
func (p *Proxy) pass(x *pipe, n int) (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.held && p.conns[x] {
		p.free.Wait()
	}
	if !p.conns[x] {
		return 0, true // what was held is lost
	}
	cut := false
	if x.left > 0 {
		if x.left -= int64(n); x.left <= 0 {
			n, cut = n+int(x.left), true
		}
	}
	if len(p.cuts) > 0 && p.down+int64(n) >= p.cuts[0] {
		n, cut = int(p.cuts[0]-p.down), true
		p.cuts = p.cuts[1:]
	}
	if p.asking {
		p.asking = false
		p.turns++
	}
	p.down += int64(n)
	return n, cut
}

// end closes both sides at once, as when a line goes dead: what has not gone
// through is lost, and the server hears of it by a reset.
func (p *Proxy) end(x *pipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.conns[x] {
		return
	}
	delete(p.conns, x)
	p.ended++
	p.free.Broadcast()
	x.device.Close()
	x.server.SetLinger(0)
	x.server.Close()
}

// Cut ends every connection now.
func (p *Proxy) Cut() {
	p.mu.Lock()
	var all []*pipe
	for x := range p.conns {
		all = append(all, x)
	}
	p.mu.Unlock()
	for _, x := range all {
		p.end(x)
	}
}

// CutAt cuts when so many more bytes have gone towards devices, once for each.
func (p *Proxy) CutAt(after ...int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts = nil
	for _, n := range after {
		p.cuts = append(p.cuts, p.down+n)
	}
}

// CutEach cuts each later connection after so many bytes towards the device; nil
// ends that.
func (p *Proxy) CutEach(after func(n int) int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.each = after
}

// Hold keeps what goes towards devices back, or lets it go.
func (p *Proxy) Hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = on
	p.free.Broadcast()
}

// Down is how many bytes have gone towards devices.
func (p *Proxy) Down() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

// Line is how many bytes have gone towards the server and towards devices, and how
// often an answer followed a question.
func (p *Proxy) Line() (up, down int64, turns int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up, p.down, p.turns
}

// Connections counts those that were opened and those that have ended.
func (p *Proxy) Connections() (opened, ended int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened, p.ended
}
