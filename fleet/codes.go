package fleet

// Every code that the server sends, with its next step and HTTP status.
var (
	ErrInternal          = &Error{"internal.error", "the server could not do this", "look into the server's log with the request's id", 500}
	ErrServerExists      = &Error{"server.exists", "the directory holds a server already", "serve it with 'dunlin-fleet serve', or name another --dir", 409}
	ErrServerAbsent      = &Error{"server.absent", "the directory holds no server", "make one with 'dunlin-fleet init --name HOST'", 404}
	ErrServerConfig      = &Error{"server.config", "the configuration is not understood", "mend fleet.yaml", 422}
	ErrServerKeys        = &Error{"server.keys", "a key of the server is missing or damaged", "bring the directory back from a backup", 500}
	ErrServerOnline      = &Error{"server.online_keys", "the online keys are not those that the newest roots name", "bring online-keys.json and fleet.db back from one and the same backup", 500}
	ErrServerDesk        = &Error{"server.desk", "another command is at work on this server's directory", "wait until it has ended: a backup, or a change of the CA, the name or the keys", 409}
	ErrServerAddress     = &Error{"server.address", "the server cannot listen at its address", "end what listens there, or pass --api and --mqtt", 500}
	ErrBackupExists      = &Error{"backup.exists", "the file for the backup exists already", "name another --out", 409}
	ErrBackupForeign     = &Error{"backup.foreign", "the file is no backup of a Dunlin server", "name the file that 'dunlin-fleet backup' wrote", 422}
	ErrBackupFormat      = &Error{"backup.format", "the backup is of a newer server", "restore it with the version that made it, or a newer one", 422}
	ErrBackupDamaged     = &Error{"backup.damaged", "the backup is damaged", "take another copy of it; nothing was changed", 422}
	ErrBackupPassphrase  = &Error{"backup.passphrase", "the passphrase does not open this backup", "try again with the passphrase that it was made with; nothing was changed", 422}
	ErrRestoreDir        = &Error{"restore.not_empty", "the directory to restore into is not empty", "name a directory that does not exist or is empty", 409}
	ErrRestoreBlobs      = &Error{"restore.blobs", "blobs that the backup names are missing", "name the directory that has them with --blobs, or pass --missing-blobs and upload them later; nothing was changed", 422}
	ErrDeviceAhead       = &Error{"device.ahead", "the device says that it holds more than any server could have given it", "look into the device; replace it if it lies", 409}
	ErrBadRequest        = &Error{"request.malformed", "the request is not understood", "compare it with the API description at /openapi.yaml", 400}
	ErrTooLarge          = &Error{"request.too_large", "the body is longer than is read here", "send less", 413}
	ErrStalled           = &Error{"request.stalled", "the body stopped coming", "send it again; nothing was stored", 408}
	ErrCut               = &Error{"request.cut", "the body ended before all of it had come", "send it again; nothing was stored", 400}
	ErrKeyReused         = &Error{"request.key_reused", "this idempotency key came with another request before", "use a new key for a new request", 422}
	ErrRouteUnknown      = &Error{"route.unknown", "nothing is served under this path", "read the API description at /openapi.yaml", 404}
	ErrUnauthenticated   = &Error{"auth.missing", "no valid token was sent", "set DUNLIN_TOKEN or pass --token", 401}
	ErrBusy              = &Error{"request.busy", "too many requests without a token", "try again in ten seconds", 429}
	ErrForbidden         = &Error{"auth.forbidden", "this token's role does not allow that", "ask an admin for a token with the role that is named", 403}
	ErrDeviceUnknown     = &Error{"device.unknown", "no such device", "list devices with 'dunlin device list'", 404}
	ErrDeviceRevoked     = &Error{"device.revoked", "the device's identity is revoked", "enrol the device again with a new token", 403}
	ErrDeviceExists      = &Error{"device.exists", "a device of this id is enrolled with another key", "choose another --name, or revoke the old device first", 409}
	ErrDeviceRetired     = &Error{"device.retired", "the device is retired", "choose another --name, or give its place to a new device with 'dunlin device replace'", 409}
	ErrDevicePending     = &Error{"device.pending", "the device waits for an operator", "accept it with 'dunlin device accept', or 'dunlin device reject' it", 409}
	ErrDeviceRejected    = &Error{"device.rejected", "an operator has rejected this key", "ask the operator; 'dunlin-agent reset' makes a new key", 403}
	ErrEnrolPending      = &Error{"enrol.pending", "the device waits for an operator to accept its key", "have it accepted with 'dunlin device accept DEVICE --fingerprint F', then run the same command again", 409}
	ErrFingerprint       = &Error{"device.fingerprint", "the key that waits has another fingerprint", "compare with what 'dunlin-agent enroll' prints on the device", 409}
	ErrSerialUnlisted    = &Error{"serial.unlisted", "the token does not list the device's serial", "make a token that lists it, with 'dunlin device token --serials'", 403}
	ErrSerialUsed        = &Error{"serial.used", "another device has enrolled with this serial", "look into both; 'dunlin device replace' gives the place to a new key", 403}
	ErrRenewRefused      = &Error{"renew.refused", "the request is not signed by the key that an enrolled device has now", "look at it with 'dunlin device show'; a device that lost its identity enrols again with a new token", 403}
	ErrRenewPending      = &Error{"renew.pending", "the certificate expired long ago: an operator has to accept the renewal", "accept it with 'dunlin device accept DEVICE', on the server's side", 409}
	ErrNothingWaits      = &Error{"device.nothing_waits", "nothing of this device waits for an operator", "look at it with 'dunlin device show'", 409}
	ErrTokenUnknown      = &Error{"token.unknown", "the enrolment token is not known here", "make one with 'dunlin device token'", 401}
	ErrTokenWaits        = &Error{"token.waits", "devices wait to be accepted by this token", "accept or reject them first, or enrol them again with another token: their keys stay", 409}
	ErrTokenExpired      = &Error{"token.expired", "the enrolment token has expired", "make one with 'dunlin device token'", 401}
	ErrTokenSpent        = &Error{"token.spent", "the enrolment token has been used as often as it allows", "make one with 'dunlin device token'", 401}
	ErrTokenCA           = &Error{"token.ca", "the enrolment token names a CA that has been retired", "make another one with 'dunlin device token', and enrol with it: the device's key stays", 401}
	ErrCAState           = &Error{"ca.state", "the CAs do not allow this now", "look at them with 'dunlin-fleet ca status'", 409}
	ErrCADevices         = &Error{"ca.devices", "devices have not followed yet", "wait until they were online, see 'dunlin-fleet ca status', or pass --force and give them up", 409}
	ErrNameState         = &Error{"name.state", "the name cannot be used", "look at the names with 'dunlin-fleet name status'", 422}
	ErrNameDevices       = &Error{"name.devices", "devices have not used the new name yet", "wait until they did, see 'dunlin-fleet name status', or pass --force and give them up", 409}
	ErrAlarmUnknown      = &Error{"alarm.unknown", "there is no such alarm", "list alarms with 'dunlin alarms'", 404}
	ErrAccessUnknown     = &Error{"access.unknown", "no such API token", "list API tokens with 'GET /v1/access'", 404}
	ErrModelUnknown      = &Error{"model.unknown", "no such model", "list models with 'dunlin model list'", 404}
	ErrReleaseUnknown    = &Error{"release.unknown", "no such release in this channel", "list releases with 'dunlin model show MODEL'", 404}
	ErrReleaseExists     = &Error{"release.exists", "this version exists in this channel with another digest", "publish under a new version", 409}
	ErrCatalogStale      = &Error{"catalog.stale", "the role was changed by somebody else meanwhile", "fetch it again and sign anew", 409}
	ErrCatalogRefused    = &Error{"catalog.refused", "the signed metadata was refused", "read the message; nothing was changed", 422}
	ErrCatalogEmpty      = &Error{"catalog.empty", "no roots are installed yet", "run 'dunlin keys init' and 'dunlin keys install'", 409}
	ErrBlobUnknown       = &Error{"blob.unknown", "no such blob", "upload it first", 404}
	ErrBlobMismatch      = &Error{"blob.mismatch", "the bytes do not have the digest they were sent under", "upload again", 422}
	ErrBlobNotAssigned   = &Error{"blob.not_assigned", "no assignment of this device names the blob", "assign the release first", 403}
	ErrBundleIncomplete  = &Error{"bundle.incomplete", "the manifest names a blob that is not here", "upload every blob before the signed metadata", 422}
	ErrBundleRefused     = &Error{"bundle.refused", "the bundle is not valid", "check it with 'dunlin model verify'", 422}
	ErrRolloutUnknown    = &Error{"rollout.unknown", "no such rollout", "list rollouts with 'dunlin rollout list'", 404}
	ErrRolloutInvalid    = &Error{"rollout.invalid", "the rollout's specification is not valid", "mend the field that is named", 422}
	ErrRolloutConflict   = &Error{"rollout.conflict", "another rollout of this model is under way on some of these devices", "wait for it or abort it", 409}
	ErrRolloutState      = &Error{"rollout.state", "the rollout's status does not allow this", "look at it with 'dunlin rollout show'", 409}
	ErrQuarantined       = &Error{"rollout.quarantined", "a gate has failed on this release", "publish a mended release, leave the hardware class out, or let it go with 'dunlin rollout release QUARANTINE --reason …'", 409}
	ErrQuarantineUnknown = &Error{"quarantine.unknown", "no such quarantine holds", "list them with 'dunlin rollout quarantines'", 404}
	ErrLeaseLost         = &Error{"rollout.lease_lost", "another server carries the rollouts out", "none needed", 409}
	ErrUnfit             = &Error{"rollout.unfit", "the release does not run on the hardware of some of these devices", "narrow the selector", 422}
	ErrNoDevices         = &Error{"rollout.no_devices", "the selector matches no device", "try it with 'dunlin device list -l SELECTOR'", 422}
	ErrSelector          = &Error{"selector.malformed", "the selector is not understood", "write it like 'site=harbour,tier!=test'", 400}
	ErrLockboxFolder     = &Error{"usb.folder", "the folder cannot be used as a lockbox", "name the folder that holds 'dunlin', or an empty one to export to", 422}
	ErrReceipt           = &Error{"usb.receipt", "the receipt was cut, changed or is not of this fleet", "bring the stick to the device again; it writes a new one", 422}
	ErrLabel             = &Error{"label.malformed", "the label is not understood", "write it like 'site=harbour'", 400}
)
