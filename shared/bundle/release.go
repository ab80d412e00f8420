package bundle

// Release is what the catalog signs about a published bundle besides the
// manifest's length and digest. It is a target's custom.release in the catalog
// and must be equal, as canonical JSON, in the director's target.
type Release struct {
	Kind     string       `json:"kind"` // KindModel or KindRuntime
	Model    string       `json:"model"`
	Version  string       `json:"version"`
	Counter  int64        `json:"counter"`            // rises per channel and model
	Size     int64        `json:"size"`               // bytes of all blobs
	Hardware string       `json:"hardware,omitempty"` // selector over facts
	ABI      *RuntimeABI  `json:"abi,omitempty"`
	Needs    *RuntimeNeed `json:"needs,omitempty"`
}

// Custom is a target's custom object in both repositories.
type Custom struct {
	Release Release `json:"release"`
	Assign  *Assign `json:"assign,omitempty"` // director only
}

// Assign is the director's part: why this device shall run this release now.
type Assign struct {
	Generation int64  `json:"generation"`        // of the whole wish
	Attempt    int64  `json:"attempt"`           // rises to have a bad pair tried again
	Rollout    string `json:"rollout,omitempty"` // rol_…
	Arm        string `json:"arm,omitempty"`     // "treated", "control"
	Runtime    string `json:"runtime,omitempty"` // catalog path of the runtime to pair with
}

// TargetPath is the catalog name of a release: channel/model/version.
func TargetPath(channel, model, version string) string {
	return channel + "/" + model + "/" + version
}
