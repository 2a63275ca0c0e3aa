package client

// Compare is one condition of a Txn. A key that is not there has version,
// revisions and lease 0, and no value.
type Compare struct {
	key    string
	prefix bool
	target string
	op     string
	number uint64
	value  []byte
}

// NumberTarget is a number of a key, to be compared: see VersionOf, ModRevisionOf,
// CreateRevisionOf and LeaseOf.
type NumberTarget struct {
	key    string
	prefix bool
	target string
}

// ValueTarget is the value of a key, to be compared byte by byte: see ValueOf.
type ValueTarget struct {
	key    string
	prefix bool
}

// VersionOf compares a key's version: 0 for one that is not there.
func VersionOf(key string) NumberTarget { return NumberTarget{key: key, target: "version"} }

// ModRevisionOf compares the revision of a key's last write.
func ModRevisionOf(key string) NumberTarget { return NumberTarget{key: key, target: "mod_revision"} }

// CreateRevisionOf compares the revision that created a key.
func CreateRevisionOf(key string) NumberTarget {
	return NumberTarget{key: key, target: "create_revision"}
}

// LeaseOf compares the id of the lease that a key is attached to.
func LeaseOf(key string) NumberTarget { return NumberTarget{key: key, target: "lease"} }

// ValueOf compares a key's value. For a key that is not there nothing holds but
// NotEqual.
func ValueOf(key string) ValueTarget { return ValueTarget{key: key} }

// Absent holds if the key is not there.
func Absent(key string) Compare { return VersionOf(key).Equal(0) }

// Exists holds if the key is there.
func Exists(key string) Compare { return VersionOf(key).Greater(0) }

// Unchanged holds if the key is as it was when item was read. An Item that has
// nothing but its Key stands for a key that was not there.
func Unchanged(item Item) Compare { return ModRevisionOf(item.Key).Equal(item.ModRevision) }

// OfPrefix takes the key for a prefix: the comparison must hold for every key
// that starts with it, and holds where there is none.
func (t NumberTarget) OfPrefix() NumberTarget { t.prefix = true; return t }

// Equal and the others compare the number with n.
func (t NumberTarget) Equal(n uint64) Compare          { return t.compare("==", n) }
func (t NumberTarget) NotEqual(n uint64) Compare       { return t.compare("!=", n) }
func (t NumberTarget) Less(n uint64) Compare           { return t.compare("<", n) }
func (t NumberTarget) LessOrEqual(n uint64) Compare    { return t.compare("<=", n) }
func (t NumberTarget) Greater(n uint64) Compare        { return t.compare(">", n) }
func (t NumberTarget) GreaterOrEqual(n uint64) Compare { return t.compare(">=", n) }

func (t NumberTarget) compare(op string, n uint64) Compare {
	return Compare{key: t.key, prefix: t.prefix, target: t.target, op: op, number: n}
}

// OfPrefix takes the key for a prefix: the comparison must hold for every key
// that starts with it, and holds where there is none.
func (t ValueTarget) OfPrefix() ValueTarget { t.prefix = true; return t }

// Equal and the others compare the value with v, which must not be changed
// before the Txn is committed.
func (t ValueTarget) Equal(v []byte) Compare          { return t.compare("==", v) }
func (t ValueTarget) NotEqual(v []byte) Compare       { return t.compare("!=", v) }
func (t ValueTarget) Less(v []byte) Compare           { return t.compare("<", v) }
func (t ValueTarget) LessOrEqual(v []byte) Compare    { return t.compare("<=", v) }
func (t ValueTarget) Greater(v []byte) Compare        { return t.compare(">", v) }
func (t ValueTarget) GreaterOrEqual(v []byte) Compare { return t.compare(">=", v) }

func (t ValueTarget) compare(op string, v []byte) Compare {
	return Compare{key: t.key, prefix: t.prefix, target: "value", op: op, value: v}
}

// compareJSON is a comparison in a request.
type compareJSON struct {
	Key      *string `json:"key,omitempty"`
	Key64    []byte  `json:"key64,omitempty"`
	Prefix   *string `json:"prefix,omitempty"`
	Prefix64 []byte  `json:"prefix64,omitempty"`
	Target   string  `json:"target"`
	Op       string  `json:"op"`
	Number   *uint64 `json:"number,omitempty"`
	Value    *string `json:"value,omitempty"`
	Value64  []byte  `json:"value64,omitempty"`
}

func (cmp Compare) json() compareJSON {
	j := compareJSON{Target: cmp.target, Op: cmp.op}
	if cmp.prefix {
		j.Prefix, j.Prefix64 = bytesJSON(cmp.key)
	} else {
		j.Key, j.Key64 = bytesJSON(cmp.key)
	}
	if cmp.target == "value" {
		j.Value, j.Value64 = bytesJSON(cmp.value)
	} else {
		j.Number = &cmp.number
	}
	return j
}
