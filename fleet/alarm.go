package fleet

import "time"

// Kinds of alarms.
const (
	AlarmResignCatalog  = "catalog.resign"   // snapshot and timestamp cannot be signed anew; subject: catalog
	AlarmResignDirector = "director.resign"  // the wishes of devices cannot be signed anew; subject: director
	AlarmExpires        = "metadata.expires" // what people sign offline ends soon; subject: "catalog root", "production", …
	AlarmServerKeys     = "server.keys"      // the server would not start again; subject: the directory
	AlarmRecoveredKey   = "device.recovered" // a key was believed that a restore had forgotten; subject: the device
	AlarmCloned         = "identity.cloned"  // two devices speak with one identity; subject: the device
	AlarmAhead          = "catalog.ahead"    // devices hold what this server lost; subject: repository and role
)

// Alarm is something that is wrong until somebody mends it. There is at most one
// of a kind and subject.
type Alarm struct {
	Kind    string // noun.reason
	Subject string // id, or name of what it is about; at most 128 bytes
	Since   time.Time
	Text    string // what is wrong, for people
	Next    string // who can do what about it
	Urgent  bool   // false: a warning, there is time
}
