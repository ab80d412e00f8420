package fleet

// MetaRow is one signed metadata file as stored.
type MetaRow struct {
	Repo    string // wire.RepoCatalog or wire.RepoDirector
	Owner   string // device of a director repository; empty: the catalog, and both roots
	Role    string
	Version int64
	Bytes   []byte
}
