package fleetd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is everything that can be set, read from one strict YAML file in the
// server's directory.
type Config struct {
	// Dir holds everything; it is not in the file.
	Dir string `yaml:"-"`
	// Name is the host name that devices and people use.
	Name string `yaml:"name"`
	// API and MQTT are addresses to listen at.
	API  string `yaml:"api"`
	MQTT string `yaml:"mqtt"`
	// Heartbeat is the pause between two hellos of a device.
	Heartbeat time.Duration `yaml:"heartbeat"`
	// Log is the least level that is logged: debug, info, warn, error.
	Log string `yaml:"log"`
}

// DefaultDir is used when no --dir is given.
const DefaultDir = "/var/lib/dunlin-fleet"

// Defaults of a server.
func Defaults() Config {
	return Config{Dir: DefaultDir, API: ":8443", MQTT: ":8883", Heartbeat: 5 * time.Minute, Log: "info"}
}

const configFile = "fleet.yaml"

// LoadConfig reads the configuration of a directory that Init has made.
func LoadConfig(dir string) (Config, error) {
	c := Defaults()
	c.Dir = dir
	b, err := os.ReadFile(filepath.Join(dir, configFile))
	if errors.Is(err, os.ErrNotExist) {
		return c, fmt.Errorf("%s holds no server; run 'dunlin-fleet init --name HOST --dir %s' first", dir, dir)
	}
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("configuration %s: %w", configFile, err)
	}
	if c.Name == "" || c.Heartbeat < time.Second || c.Heartbeat > 24*time.Hour {
		return c, fmt.Errorf("configuration %s: a name, and a heartbeat of 1s to 24h wanted", configFile)
	}
	return c, nil
}
