package fleetd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
)

// Config is everything that can be set, read from one strict YAML file in the
// server's directory.
type Config struct {
	// Dir holds everything; it is not in the file.
	Dir string `yaml:"-"`
	// Name is the host name that devices and people use.
	Name string `yaml:"name"`
	// FormerNames are host names that devices may still use; see 'dunlin-fleet name'.
	FormerNames []string `yaml:"former_names,omitempty"`
	// API and MQTT are addresses to listen at.
	API  string `yaml:"api"`
	MQTT string `yaml:"mqtt"`
	// Heartbeat is the pause between two hellos of a device.
	Heartbeat time.Duration `yaml:"heartbeat"`
	// DeviceLife is how long a device's certificate is valid; devices renew at two
	// thirds of it. Shorter than the default is for tests only: a device that is
	// without a network for that long is waited for by an operator 30 days later.
	DeviceLife time.Duration `yaml:"device_life"`
	// Windows are the lengths of devices' windows of measurement.
	Windows Windows `yaml:"windows"`
	// Signatures says by channel whose model.sig a release must carry to be taken in.
	Signatures map[string]modelsig.Requirement `yaml:"signatures,omitempty"`
	// Log is the least level that is logged: debug, info, warn, error.
	Log string `yaml:"log"`
}

// Windows of measurement: in each, a device sends one small record a model and one
// about itself. The gates of a rollout with a shorter first look make them shorter.
type Windows struct {
	Idle    time.Duration `yaml:"idle"`    // while no rollout concerns the device: what gates look back at
	Rollout time.Duration `yaml:"rollout"` // while one does
}

// DefaultDir is used when no --dir is given.
const DefaultDir = "/var/lib/dunlin-fleet"

// Defaults of a server.
func Defaults() Config {
	return Config{Dir: DefaultDir, API: ":8443", MQTT: ":8883", Heartbeat: 5 * time.Minute, DeviceLife: enroll.DeviceLife, Windows: Windows{Idle: time.Hour, Rollout: time.Minute}, Log: "info"}
}

const configFile = "fleet.yaml"

// LoadConfig reads the configuration of a directory that Init has made.
func LoadConfig(dir string) (Config, error) {
	c := Defaults()
	c.Dir = dir
	b, err := os.ReadFile(filepath.Join(dir, configFile))
	if errors.Is(err, os.ErrNotExist) {
		return c, fleet.ErrServerAbsent.With("%s holds no server", dir)
	}
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, fleet.ErrServerConfig.With("%s: %v", configFile, err)
	}
	var level slog.Level
	switch {
	case c.Name == "":
		return c, fleet.ErrServerConfig.With("%s: name: the host name is missing", configFile)
	case len(c.FormerNames) > maxFormerNames:
		return c, fleet.ErrServerConfig.With("%s: former_names: at most %d", configFile, maxFormerNames)
	case c.Heartbeat < time.Second || c.Heartbeat > 24*time.Hour:
		return c, fleet.ErrServerConfig.With("%s: heartbeat %v: 1s to 24h wanted", configFile, c.Heartbeat)
	case c.DeviceLife < time.Second || c.DeviceLife > 366*24*time.Hour:
		return c, fleet.ErrServerConfig.With("%s: device_life %v: 1s to 8784h wanted", configFile, c.DeviceLife)
	case c.Windows.Idle < time.Second || c.Windows.Idle > 24*time.Hour || c.Windows.Rollout < time.Second || c.Windows.Rollout > c.Windows.Idle:
		return c, fleet.ErrServerConfig.With("%s: windows: idle %v, rollout %v: 1s to 24h wanted, and rollout not above idle", configFile, c.Windows.Idle, c.Windows.Rollout)
	case level.UnmarshalText([]byte(c.Log)) != nil:
		return c, fleet.ErrServerConfig.With("%s: log %q: debug, info, warn or error wanted", configFile, c.Log)
	}
	return c, nil
}
