// Package bundle is one immutable release of a model (or of a runtime) as it is
// stored and carried: an OCI image manifest of the CNCF ModelPack kind that names
// every file by SHA-256, and the contract that says what the release promises and
// needs. Everything here is pure: bytes and io/fs in, values out; nothing is
// written. All input may come from strangers: it is bounded, refused with a code,
// and never makes the package panic.
package bundle
