package fleet

// MetaRow is one signed metadata file as stored.
type MetaRow struct {
	Repo    string // wire.RepoCatalog or wire.RepoDirector
	Owner   string // device of a director repository; empty: the catalog, and both roots
	Role    string
	Version int64
	Bytes   []byte
	// Floor is the least version that the next one is above, for publishers; it
	// is not stored with the row. 0: none.
	Floor int64
}
