package bundle

import (
	"encoding/json"
	"io/fs"
	"path"
	"strings"
)

// Media types of OCI, of CNCF ModelPack (model-spec 0.0.7) and our own one.
const (
	MediaTypeManifest = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex    = "application/vnd.oci.image.index.v1+json"
	ArtifactType      = "application/vnd.cncf.model.manifest.v1+json"
	MediaTypeConfig   = "application/vnd.cncf.model.config.v1+json"
	MediaTypeWeight   = "application/vnd.cncf.model.weight.v1.raw"
	MediaTypeWeightCf = "application/vnd.cncf.model.weight.config.v1.raw"
	MediaTypeDoc      = "application/vnd.cncf.model.doc.v1.raw"
	MediaTypeCode     = "application/vnd.cncf.model.code.v1.raw"
	MediaTypeDataset  = "application/vnd.cncf.model.dataset.v1.raw"
	MediaTypeContract = "application/vnd.dunlin.contract.v1+json"
	MediaTypeSigstore = "application/vnd.dev.sigstore.bundle.v0.3+json"

	// AnnotationPath carries a layer's path inside the bundle.
	AnnotationPath = "org.cncf.model.filepath"
)

// ContractPath is where a place keeps the contract, recordPath where it keeps its
// own record; no file may have either path.
const (
	ContractPath = "contract.json"
	recordPath   = "slot.json"
)

// Limits of a manifest.
const (
	MaxManifest = 1 << 20 // bytes
	MaxFiles    = 256
	MaxFile     = 4 << 30 // bytes of one file
	MaxPath     = 200     // bytes of a path
)

// Descriptor names a blob.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"` // "sha256:…"
	Size        int64             `json:"size"`   // bytes
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Path is the descriptor's path inside the bundle.
func (d Descriptor) Path() string { return d.Annotations[AnnotationPath] }

// Manifest is an OCI image manifest that passed ParseManifest, or is about to
// be encoded by Pack.
type Manifest struct {
	SchemaVersion int               `json:"schemaVersion"` // 2
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"` // the contract and every file
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// ParseManifest reads and checks a manifest. Keys that it does not know are
// allowed, because other tools of the OCI world add theirs; duplicate ones are
// not.
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, refuse(CodeManifestTooLarge, "manifest of %d bytes, at most %d are read", len(b), MaxManifest)
	}
	if err := scan(b, false); err != nil {
		return nil, refuse(CodeManifestMalformed, "manifest: %v", err)
	}
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, refuse(CodeManifestMalformed, "manifest: %v", err)
	}
	if err := m.validate(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Manifest) validate() error {
	if m.SchemaVersion != 2 || m.MediaType != MediaTypeManifest || m.ArtifactType != ArtifactType || m.Config.MediaType != MediaTypeConfig {
		return refuse(CodeManifestKind, "this is no model bundle: schema %d, media type %q, artifact type %q, config %q",
			m.SchemaVersion, m.MediaType, m.ArtifactType, m.Config.MediaType)
	}
	if len(m.Layers) > MaxFiles {
		return refuse(CodeManifestSize, "manifest of %d files, at most %d are allowed", len(m.Layers), MaxFiles)
	}
	if err := m.Config.validate(MaxManifest); err != nil {
		return err
	}
	contracts := 0
	sizes := map[string]int64{m.Config.Digest: m.Config.Size}
	for _, l := range m.Layers {
		if n, ok := sizes[l.Digest]; ok && n != l.Size {
			return refuse(CodeManifestSize, "blob %s has two sizes", l.Digest)
		}
		sizes[l.Digest] = l.Size
		limit := int64(MaxFile)
		if l.MediaType == MediaTypeContract {
			contracts++
			limit = MaxContract
		}
		if err := l.validate(limit); err != nil {
			return err
		}
		if (l.MediaType == MediaTypeContract) != (l.Path() == ContractPath) || l.Path() == recordPath {
			return refuse(CodeManifestPath, "%s and %s are not for files", ContractPath, recordPath)
		}
	}
	if contracts != 1 {
		return refuse(CodeContractMissing, "manifest with %d contracts, exactly one is needed", contracts)
	}
	return m.validatePaths()
}

func (d Descriptor) validate(limit int64) error {
	if !ValidDigest(d.Digest) {
		return refuse(CodeManifestDigest, "%q is no SHA-256 digest", d.Digest)
	}
	if d.Size < 0 || d.Size > limit {
		return refuse(CodeManifestSize, "blob %s of %d bytes, at most %d are allowed", d.Digest, d.Size, limit)
	}
	return nil
}

// validatePaths refuses paths that could leave the bundle, that collide on a file
// system without upper case, or of which one is the folder of another.
func (m *Manifest) validatePaths() error {
	seen := map[string]bool{}
	for _, l := range m.Layers {
		if err := ValidPath(l.Path()); err != nil {
			return err
		}
		key := strings.ToLower(l.Path())
		if seen[key] {
			return refuse(CodeManifestDuplicate, "file %q twice", l.Path())
		}
		seen[key] = true
	}
	for key := range seen {
		for dir := path.Dir(key); dir != "."; dir = path.Dir(dir) {
			if seen[dir] {
				return refuse(CodeManifestDuplicate, "%q is a file and a folder", dir)
			}
		}
	}
	return nil
}

// ValidPath refuses every path that is not plain: relative, of letters, digits,
// dots, dashes, underscores and slashes, without a part that starts with a dot.
func ValidPath(p string) error {
	if p == "" || len(p) > MaxPath || !fs.ValidPath(p) || p == "." {
		return refuse(CodeManifestPath, "path %q is empty, too long, absolute or leaves the bundle", p)
	}
	for _, c := range p {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("._-/", c)) {
			return refuse(CodeManifestPath, "path %q holds %q; letters, digits and ._-/ are allowed", p, c)
		}
	}
	for part := range strings.SplitSeq(p, "/") {
		if part[0] == '.' || part[0] == '-' || part[len(part)-1] == '.' {
			return refuse(CodeManifestPath, "path %q: a part may not start with a dot or dash, or end with a dot", p)
		}
	}
	return nil
}

// Contract is the contract's layer.
func (m *Manifest) Contract() Descriptor {
	for _, l := range m.Layers {
		if l.MediaType == MediaTypeContract {
			return l
		}
	}
	return Descriptor{}
}

// Lookup returns the layer of a path.
func (m *Manifest) Lookup(path string) (Descriptor, bool) {
	for _, l := range m.Layers {
		if l.Path() == path {
			return l, true
		}
	}
	return Descriptor{}, false
}

// Blobs returns every blob that the manifest names, each digest once: config,
// contract, files. The manifest itself is not among them.
func (m *Manifest) Blobs() []Descriptor {
	seen := map[string]bool{}
	var list []Descriptor
	for _, d := range append([]Descriptor{m.Config}, m.Layers...) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			list = append(list, d)
		}
	}
	return list
}

// Size is the bytes of all blobs.
func (m *Manifest) Size() int64 {
	n := int64(0)
	for _, d := range m.Blobs() {
		n += d.Size
	}
	return n
}
