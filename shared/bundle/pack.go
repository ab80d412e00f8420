package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"path"
	"slices"
	"strings"
)

// Source is a file to be packed.
type Source struct {
	Path string // inside the bundle
	Open func() (io.ReadCloser, error)
}

// Packed is a bundle ready to be written: the small blobs as bytes, the files by
// the digests that the manifest now names.
type Packed struct {
	Digest      string // of Raw: the bundle's name
	Raw         []byte // the manifest
	Manifest    *Manifest
	RawConfig   []byte
	RawContract []byte
}

// Pack makes the manifest of a contract and its files, reading each file once.
// Equal contract and files give an equal digest: nothing of time, machine or order
// goes in.
func Pack(c *Contract, files []Source) (*Packed, error) {
	contract, err := c.Encode()
	if err != nil {
		return nil, err
	}
	p := &Packed{RawContract: contract}
	layers := []Descriptor{describeBytes(contract, MediaTypeContract, ContractPath)}
	sorted := slices.SortedFunc(slices.Values(files), func(a, b Source) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range sorted {
		d, err := describeSource(f)
		if err != nil {
			return nil, err
		}
		layers = append(layers, d)
	}
	if p.RawConfig, err = json.Marshal(packConfig(c, layers)); err != nil {
		return nil, err
	}
	config := describeBytes(p.RawConfig, MediaTypeConfig, "")
	p.Manifest = &Manifest{
		SchemaVersion: 2, MediaType: MediaTypeManifest, ArtifactType: ArtifactType, Config: config, Layers: layers,
		Annotations: map[string]string{"org.opencontainers.image.title": c.Model, "org.opencontainers.image.version": c.Version},
	}
	if err := p.Manifest.validate(); err != nil {
		return nil, err
	}
	if err := namesFiles(c, p.Manifest); err != nil {
		return nil, err
	}
	if p.Raw, err = json.Marshal(p.Manifest); err != nil {
		return nil, err
	}
	p.Digest = DigestOf(p.Raw)
	return p, nil
}

func describeBytes(b []byte, mediaType, path string) Descriptor {
	d := Descriptor{MediaType: mediaType, Digest: DigestOf(b), Size: int64(len(b))}
	if path != "" {
		d.Annotations = map[string]string{AnnotationPath: path}
	}
	return d
}

func describeSource(f Source) (Descriptor, error) {
	r, err := f.Open()
	if err != nil {
		return Descriptor{}, err
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return Descriptor{}, err
	}
	return Descriptor{
		MediaType: mediaType(f.Path), Digest: digestPrefix + hex.EncodeToString(h.Sum(nil)), Size: n,
		Annotations: map[string]string{AnnotationPath: f.Path},
	}, nil
}

// mediaType tells other ModelPack tools what a file is for; Dunlin itself goes
// by the contract.
func mediaType(p string) string {
	switch strings.ToLower(path.Ext(p)) {
	case ".md", ".pdf", ".html":
		return MediaTypeDoc
	case ".npz", ".npy", ".csv":
		return MediaTypeDataset
	case ".txt", ".json", ".yaml", ".yml":
		return MediaTypeWeightCf
	case ".so", ".dylib", ".dll":
		return MediaTypeCode
	case ".sig":
		return MediaTypeSigstore
	default:
		return MediaTypeWeight
	}
}

// modelConfig is the configuration object of CNCF ModelPack.
type modelConfig struct {
	Descriptor struct {
		Name     string   `json:"name"`
		Version  string   `json:"version"`
		Licenses []string `json:"licenses,omitempty"`
	} `json:"descriptor"`
	ModelFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diffIds"`
	} `json:"modelfs"`
	Config struct {
		Format string `json:"format,omitempty"`
	} `json:"config"`
}

func packConfig(c *Contract, layers []Descriptor) modelConfig {
	var m modelConfig
	m.Descriptor.Name, m.Descriptor.Version = c.Model, c.Version
	if p := c.Provenance; p != nil && p.Licence != "" {
		m.Descriptor.Licenses = []string{p.Licence}
	}
	m.ModelFS.Type = "layers"
	for _, l := range layers {
		m.ModelFS.DiffIDs = append(m.ModelFS.DiffIDs, l.Digest)
	}
	m.Config.Format = strings.TrimPrefix(path.Ext(c.File), ".")
	return m
}

// namesFiles refuses a contract that names a file which the manifest lacks.
func namesFiles(c *Contract, m *Manifest) error {
	for _, p := range c.Files() {
		if _, ok := m.Lookup(p); !ok {
			return refuse(CodeContractMissing, "the contract names %q, which is not in the bundle", p)
		}
	}
	return nil
}
