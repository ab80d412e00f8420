package sandbox

import (
	"encoding/json"
	"fmt"
)

// Host is what this device can put around workers, found out once.
type Host struct {
	groups           *groups // nil: none
	noGroups, noUser error
	abi              int // of Landlock, 0: none
	seccomp          bool
}

// Probe finds out what this device can put around workers. A version 2 tree of
// control groups that is given to the agent is made ready, and empty groups of
// agents that are gone are removed.
func Probe() *Host {
	h := &Host{noUser: mayChangeUser(), abi: landlockABI(), seccomp: haveSeccomp()}
	h.groups, h.noGroups = findGroups("/proc/self")
	return h
}

// Cell is what surrounds one worker.
type Cell struct {
	host   *Host
	plan   string // for the launcher
	groups []string
}

// Cell prepares a worker's. Library is the descriptor that the worker opens the
// runtime's library by, as /proc/self/fd/N: the one thing of the agent's that it
// may open; 0 for a worker without.
func (h *Host) Cell(l Limits, library int) (*Cell, error) {
	c := &Cell{host: h}
	if h.groups != nil {
		var err error
		if c.groups, err = h.groups.make(l); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(plan{Limits: l, Library: library, User: h.noUser == nil, Groups: c.groups})
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("plan of the sandbox: %w", err)
	}
	c.plan = string(b)
	return c, nil
}

// Arguments returns the command line after the agent's own path that starts
// worker with args in the cell.
func (c *Cell) Arguments(worker string, args ...string) []string {
	return append([]string{Word, c.plan, worker}, args...)
}

// Close removes the cell's control groups; its worker must be gone. What the
// kernel still holds then goes with a later one.
func (c *Cell) Close() {
	if c.host.groups != nil {
		c.host.groups.release(c.groups)
	}
}

// Posture says which layers surround the workers, and why others do not. The
// launcher starts no worker without the layers that are there; without launcher,
// which is how an emulated agent runs, there are the limits only.
func (h *Host) Posture(withoutLauncher bool) []Layer {
	var out []Layer
	for _, b := range bounds {
		out = append(out, Layer{Name: b.name, Have: true})
	}
	add := func(name string, have bool, detail string) {
		if withoutLauncher {
			have, detail = false, "this machine cannot start the launcher"
		}
		out = append(out, Layer{Name: name, Have: have, Detail: detail})
	}
	add("no_new_privs", true, "")
	add("own_user", h.noUser == nil, why(h.noUser, userDetail))
	add("cgroup", h.groups != nil, why(h.noGroups, h.groups.detail))
	for _, l := range kernelLayers(h.abi, h.seccomp) {
		add(l.Name, l.Have, l.Detail)
	}
	return out
}

// Kernel says which layers this kernel can give, whoever starts the agent. It
// changes nothing.
func Kernel() []Layer { return kernelLayers(landlockABI(), haveSeccomp()) }

func kernelLayers(abi int, seccomp bool) []Layer {
	l := Layer{Name: "landlock", Have: abi > 0, Detail: landlockDetail(abi)}
	if !l.Have {
		l.Detail = "the kernel has no Landlock, or it is not among its security modules (lsm=)"
	}
	s := Layer{Name: "seccomp", Have: seccomp}
	if !s.Have {
		s.Detail = "the kernel does not filter system calls"
	}
	return []Layer{l, s}
}

// why is the reason why a layer is missing, or what there is.
func why(missing error, have func() string) string {
	if missing != nil {
		return missing.Error()
	}
	return have()
}

func (g *groups) detail() string { return fmt.Sprintf("version %d: memory and threads", g.version) }
