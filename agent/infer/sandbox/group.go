package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// groupPrefix begins the name of every control group of a worker; the agent's
// process id and a random number follow.
const groupPrefix = "dunlin-worker-"

// agentGroup is where the agent moves itself in a version 2 tree: a group that
// gives controllers to others has no process of its own.
const agentGroup = "dunlin-agent"

// groupRoom is what a worker's group may use beyond its data: the model's and the
// libraries' pages, the frames, what the kernel holds for it.
const groupRoom = 64 << 20

// groups makes control groups for workers below the agent's own.
type groups struct {
	version int
	bases   []string // directories below which groups are made: one for version 2

	mu   sync.Mutex
	left []string // that could not be removed yet
}

// findGroups finds where this process may make groups with bounded memory and
// threads. Proc is /proc/self. What workers of agents that are gone left is
// removed.
func findGroups(proc string) (*groups, error) {
	own, err := ownGroups(proc)
	if err != nil {
		return nil, err
	}
	mounts, err := groupMounts(proc)
	if err != nil {
		return nil, err
	}
	g := &groups{version: 1}
	for _, controller := range []string{"memory", "pids"} {
		if path, ok := own[controller]; ok && mounts[controller] != nil {
			g.bases = append(g.bases, mounts[controller].below(path))
		}
	}
	switch {
	case len(g.bases) == 2:
		g.bases = slices.Compact(g.bases) // mounted together
	case mounts[""] != nil && own[""] != "":
		base, err := delegated(mounts[""].below(own[""]))
		if err != nil {
			return nil, err
		}
		g.version, g.bases = 2, []string{base}
	default:
		return nil, errors.New("the kernel bounds no memory and threads by group")
	}
	g.sweep()
	// Rights show only when one is made.
	paths, err := g.make(Limits{DataMB: 64, Threads: 8})
	if err != nil {
		return nil, err
	}
	g.release(paths)
	return g, nil
}

// ownGroups are the paths of this process's groups by controller; "" is version 2.
func ownGroups(proc string) (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join(proc, "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("own control group: %w", err)
	}
	own := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			for c := range strings.SplitSeq(f[1], ",") {
				own[c] = f[2]
			}
		}
	}
	return own, nil
}

// groupMount is where a part of a tree of groups is seen.
type groupMount struct{ root, dir string }

// below is the directory of a group; a container sees its own part only.
func (m *groupMount) below(path string) string {
	return filepath.Join(m.dir, strings.TrimPrefix(path, strings.TrimSuffix(m.root, "/")))
}

// groupMounts are the mounted trees by controller; "" is version 2.
func groupMounts(proc string) (map[string]*groupMount, error) {
	f, err := os.Open(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("mounts of control groups: %w", err)
	}
	defer f.Close()
	mounts := map[string]*groupMount{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		left, right, ok := strings.Cut(s.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		m := &groupMount{l[3], l[4]}
		switch r[0] {
		case "cgroup2":
			mounts[""] = m
		case "cgroup":
			for option := range strings.SplitSeq(r[2], ",") {
				mounts[option] = m
			}
		}
	}
	return mounts, s.Err()
}

// delegated makes the agent's own group one that others can be made below, which
// systemd's Delegate= lets it do: it goes into a group of its own and gives the
// others their controllers.
func delegated(own string) (string, error) {
	if filepath.Base(own) == agentGroup {
		return filepath.Dir(own), nil // an agent that began again
	}
	b, err := os.ReadFile(filepath.Join(own, "cgroup.controllers"))
	if err != nil {
		return "", fmt.Errorf("own control group: %w", err)
	}
	for _, c := range []string{"memory", "pids"} {
		if !slices.Contains(strings.Fields(string(b)), c) {
			return "", fmt.Errorf("the controller %s is not given to the agent's group (Delegate= of the unit)", c)
		}
	}
	b, err = os.ReadFile(filepath.Join(own, "cgroup.procs"))
	if err != nil {
		return "", fmt.Errorf("own control group: %w", err)
	}
	if others := strings.Fields(string(b)); len(others) != 1 || others[0] != strconv.Itoa(os.Getpid()) {
		return "", errors.New("the agent's control group is not its own: others run in it")
	}
	if err := os.Mkdir(filepath.Join(own, agentGroup), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("own control group: %w", err)
	}
	if err := set(filepath.Join(own, agentGroup), "cgroup.procs", "0"); err != nil {
		return "", err
	}
	return own, set(own, "cgroup.subtree_control", "+memory +pids")
}

// make makes one worker's group in every tree and returns the directories.
func (g *groups) make(l Limits) (paths []string, err error) {
	name := fmt.Sprintf("%s%d-%x", groupPrefix, os.Getpid(), rand.Uint64())
	defer func() {
		if err != nil {
			remove(paths)
		}
	}()
	for _, base := range g.bases {
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return paths, fmt.Errorf("make control group: %w", err)
		}
		paths = append(paths, dir)
		if err := g.bound(dir, l); err != nil {
			return paths, err
		}
	}
	return paths, nil
}

// bound sets a group's limits: those that its tree has files for.
func (g *groups) bound(dir string, l Limits) error {
	memory := strconv.Itoa(l.DataMB<<20 + groupRoom)
	var settings [][2]string
	if l.Threads > 0 {
		settings = append(settings, [2]string{"pids.max", strconv.Itoa(l.Threads)})
	}
	if l.DataMB > 0 && g.version == 2 {
		settings = append(settings, [2]string{"memory.max", memory}, [2]string{"memory.swap.max", "0"}, [2]string{"memory.oom.group", "1"})
	}
	if l.DataMB > 0 && g.version == 1 {
		settings = append(settings, [2]string{"memory.limit_in_bytes", memory}, [2]string{"memory.memsw.limit_in_bytes", memory})
	}
	for _, s := range settings {
		if err := set(dir, s[0], s[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sweep removes what agents that are gone have left.
func (g *groups) sweep() {
	for _, base := range g.bases {
		left, err := filepath.Glob(filepath.Join(base, groupPrefix+"*"))
		if err != nil {
			continue
		}
		for _, dir := range left {
			owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), groupPrefix), "-")
			if pid, err := strconv.Atoi(owner); err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
				os.Remove(dir) // one whose worker has not ended yet stays for the next time
			}
		}
	}
}

// enter moves this process into groups.
func enter(dirs []string) error {
	for _, dir := range dirs {
		if err := set(dir, "cgroup.procs", "0"); err != nil {
			return err
		}
	}
	return nil
}

// set writes one file of a group.
func set(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	return nil
}

// release removes groups and those before them that could not be.
func (g *groups) release(dirs []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = remove(append(g.left, dirs...))
}

// remove removes groups and returns those that it cannot: something is in them.
func remove(dirs []string) (left []string) {
	for _, dir := range dirs {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			left = append(left, dir)
		}
	}
	return left
}
