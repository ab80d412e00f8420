package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/dunlin-edge/dunlin/agent/engine"
	"github.com/dunlin-edge/dunlin/agent/facts"
	"github.com/dunlin-edge/dunlin/agent/handoff"
	"github.com/dunlin-edge/dunlin/agent/infer"
)

// Config is everything that can be set, read from one strict YAML file.
type Config struct {
	// State is the directory of everything that must survive a restart.
	State string `yaml:"state"`
	// Run is the directory of sockets; it may be lost at any time.
	Run string `yaml:"run"`
	// Worker is the path of dunlin-infer.
	Worker string `yaml:"worker"`
	// Listen is the loopback address of the Open Inference Protocol, empty: the
	// unix socket only.
	Listen string `yaml:"listen"`
	// SharedMemory lets programs on this device that reach the Open Inference
	// Protocol give tensors in regions of /dev/shm that they name. Whoever may ask
	// may then read and write any region that the agent may: off unless all of them
	// are trusted.
	SharedMemory bool `yaml:"shared_memory"`
	// Threads of each worker, 1 to 64, or "auto": as each model's proof finds best.
	Threads OrAuto `yaml:"threads"`
	// Accelerators are tried before the processor, in order: gpu, npu, edgetpu. One
	// that does not do is a fact in the proof, and the next is tried.
	Accelerators []string `yaml:"accelerators,omitempty"`
	// Workers of each model, 1 to 16, or "auto": one with many threads answers a
	// request sooner, many with one thread answer more of them.
	Workers OrAuto `yaml:"workers"`
	// QueueMB bounds each of the three queues on disk.
	QueueMB int `yaml:"queue_mb"`
	// Capture says whether inputs may leave this device: "allow", or "off", whatever
	// the server orders.
	Capture string `yaml:"capture"`
	// CaptureMB bounds the inputs that wait to be sent, on disk.
	CaptureMB int `yaml:"capture_mb"`
	// CaptureRedact is the path of a program that gets each captured input on its
	// standard input and writes what may leave; see docs/capture.md. Empty: none.
	CaptureRedact string `yaml:"capture_redact,omitempty"`
	// External names, by model, the engine beside the agent that runs it, where its
	// contract says serve: external.
	External map[string]engine.Engine `yaml:"external,omitempty"`
	// Files says, by model, where an application that runs it by itself finds it, where
	// its contract says serve: file.
	Files map[string]handoff.File `yaml:"files,omitempty"`
	// ReconnectMin and ReconnectMax bound the jittered pause before the device
	// connects again.
	ReconnectMin time.Duration `yaml:"reconnect_min"`
	ReconnectMax time.Duration `yaml:"reconnect_max"`
	// USB is the folder where sticks are mounted, itself or below; empty: sticks are
	// taken in by 'dunlin-agent import' only.
	USB string `yaml:"usb"`
	// Log is the least level that is logged: debug, info, warn, error.
	Log string `yaml:"log"`
	// Class overrides the hardware class that the device tells.
	Class string `yaml:"class,omitempty"`
	// Serial overrides the hardware's serial that the device tells.
	Serial string `yaml:"serial,omitempty"`
}

// Values of Config.Capture.
const (
	CaptureOff   = "off"
	CaptureAllow = "allow"
)

// DefaultConfigPath is read when no --config is given.
const DefaultConfigPath = "/etc/dunlin/agent.yaml"

// Defaults returns the configuration of a packaged agent.
func Defaults() Config {
	return Config{
		State: "/var/lib/dunlin", Run: "/run/dunlin", Worker: "/usr/lib/dunlin/dunlin-infer",
		Listen: "127.0.0.1:8000", Threads: 1, Workers: 1, QueueMB: 64, Capture: CaptureOff, CaptureMB: 16,
		ReconnectMin: time.Second, ReconnectMax: 300 * time.Second, USB: "/media/dunlin", Log: "info",
	}
}

// maxConfig bounds the file.
const maxConfig = 64 << 10

// LoadConfig reads path over the defaults. Unknown keys are refused by name. A
// missing file is an error unless path is DefaultConfigPath.
func LoadConfig(path string) (Config, error) {
	c := Defaults()
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && path == DefaultConfigPath {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if len(b) > maxConfig {
		return c, fmt.Errorf("configuration %s: longer than %d bytes", path, maxConfig)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, c.check()
}

func (c *Config) check() error {
	switch {
	case !filepath.IsAbs(c.State):
		return fmt.Errorf("configuration: state %q: an absolute path is wanted", c.State)
	case !filepath.IsAbs(c.Run):
		return fmt.Errorf("configuration: run %q: an absolute path is wanted", c.Run)
	case c.USB != "" && !filepath.IsAbs(c.USB):
		return fmt.Errorf("configuration: usb %q: an absolute path is wanted", c.USB)
	case c.Workers < 0 || c.Workers > 16:
		return fmt.Errorf("configuration: workers %d: 1 to 16 or auto wanted", c.Workers)
	case c.Threads < 0 || c.Threads > 64:
		return fmt.Errorf("configuration: threads %d: 1 to 64 or auto wanted", c.Threads)
	case c.QueueMB < 1 || c.QueueMB > 4096:
		return fmt.Errorf("configuration: queue_mb %d: 1 to 4096 wanted", c.QueueMB)
	case c.Capture != CaptureOff && c.Capture != CaptureAllow:
		return fmt.Errorf("configuration: capture %q: off or allow is wanted", c.Capture)
	case c.CaptureMB < 1 || c.CaptureMB > 4096:
		return fmt.Errorf("configuration: capture_mb %d: 1 to 4096 wanted", c.CaptureMB)
	case c.CaptureRedact != "" && !filepath.IsAbs(c.CaptureRedact):
		return fmt.Errorf("configuration: capture_redact %q: an absolute path is wanted", c.CaptureRedact)
	case c.ReconnectMin <= 0 || c.ReconnectMax < c.ReconnectMin:
		return fmt.Errorf("configuration: reconnect_min %v and reconnect_max %v: 0 < min <= max wanted", c.ReconnectMin, c.ReconnectMax)
	}
	for i, name := range c.Accelerators {
		if !slices.Contains(infer.Accelerators(), name) || slices.Contains(c.Accelerators[:i], name) {
			return fmt.Errorf("configuration: accelerators %q: each of %v once is allowed", name, infer.Accelerators())
		}
	}
	return c.checkKinds()
}

// checkKinds checks how models are served that no worker runs.
func (c *Config) checkKinds() error {
	taken := map[string]string{}
	own := func(what, path, model string) error {
		path = filepath.Clean(path)
		switch other, ok := taken[path]; {
		case !filepath.IsAbs(path):
			return fmt.Errorf("configuration: %s of %s: %q: an absolute path is wanted", what, model, path)
		case ok && (what != "repository" || other != what):
			return fmt.Errorf("configuration: %s of %s: %s is used twice", what, model, path)
		case path == filepath.Clean(c.State) || strings.HasPrefix(path, filepath.Clean(c.State)+"/"):
			return fmt.Errorf("configuration: %s of %s: %s lies in %s, which is the agent's own", what, model, path, c.State)
		}
		taken[path] = what
		return nil
	}
	for _, model := range slices.Sorted(maps.Keys(c.External)) {
		e := c.External[model]
		if err := engine.CheckAddress(e.URL); err != nil {
			return fmt.Errorf("configuration: url of %s: %w", model, err)
		}
		if err := own("repository", e.Repository, model); err != nil {
			return err
		}
	}
	for _, model := range slices.Sorted(maps.Keys(c.Files)) {
		f := c.Files[model]
		if err := own("path", f.Path, model); err != nil {
			return err
		}
		for what, program := range map[string][]string{"hook": f.Hook, "prove": f.Prove} {
			if len(program) > 0 && !filepath.IsAbs(program[0]) {
				return fmt.Errorf("configuration: %s of %s: %q: an absolute path is wanted", what, model, program[0])
			}
		}
		if f.Health != "" && f.Health != handoff.HealthRequired && f.Health != handoff.HealthNone {
			return fmt.Errorf("configuration: health of %s: %q: required or none is wanted", model, f.Health)
		}
	}
	return nil
}

// OrAuto is a number; 0 leaves it to each model's proof.
type OrAuto int

const auto = "auto"

// UnmarshalYAML reads a number above 0, or "auto".
func (n *OrAuto) UnmarshalYAML(y *yaml.Node) error {
	if y.Value == auto {
		*n = 0
		return nil
	}
	v, err := strconv.Atoi(y.Value)
	if err != nil || v < 1 {
		return fmt.Errorf("line %d: %q: threads and workers are a number above 0 or auto", y.Line, y.Value)
	}
	*n = OrAuto(v)
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (n OrAuto) MarshalYAML() (any, error) {
	if n == 0 {
		return auto, nil
	}
	return int(n), nil
}

// YAML returns the configuration as it is in effect.
func (c Config) YAML() string {
	b, err := yaml.Marshal(c)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// AgentSocket is the local API's socket, InferSocket that of inference.
func (c Config) AgentSocket() string { return filepath.Join(c.Run, "agent.sock") }

// InferSocket serves the Open Inference Protocol.
func (c Config) InferSocket() string { return filepath.Join(c.Run, "infer.sock") }

// Version of the agent, set when it is built.
var Version = "0.0.0-dev"

// Facts are what the device tells of itself.
func (c Config) Facts() map[string]string {
	return facts.Read(Version, facts.Set{Class: c.Class, Serial: c.Serial})
}
