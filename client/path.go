package client

import (
	"encoding/base64"
	"net/url"
	"strings"
	"unicode/utf8"
)

const (
	kvPath       = "/v1/kv"
	kvPrefix     = "/v1/kv/"
	txnPath      = "/v1/txn"
	watchPath    = "/v1/watch"
	leasesPath   = "/v1/leases"
	locksPrefix  = "/v1/locks/"
	snapshotPath = "/v1/snapshot"
	statusPath   = "/v1/status"
	clusterPath  = "/v1/cluster"
	membersPath  = "/v1/cluster/members"
	transferPath = "/v1/cluster/transfer"

	// maxKeyBytes is the longest key that any server takes.
	maxKeyBytes = 4096
)

// keyPath returns the path of a key as it goes over the wire.
//
// All bytes but the unreserved ones of RFC 3986 are percent-encoded. A slash
// stays one, so that `carts/7` reads as such in logs, as long as nothing on the
// way could take the key for a path to tidy up: where the key has an empty, `.`
// or `..` segment its slashes are encoded too, and so are the dots of a key that
// is `.` or `..` as a whole.
func keyPath(key string) string {
	tidy := true
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment == "." || segment == ".." {
			tidy = false
		}
	}
	return kvPrefix + percentEncoded(key, tidy)
}

// escaped percent-encodes all bytes of a name, slashes too: it is one segment of
// a path, or a part of a header.
func escaped(name string) string { return percentEncoded(name, false) }

func percentEncoded(text string, slashes bool) string {
	const hexDigits = "0123456789ABCDEF"
	dots := text == "." || text == ".."
	b := make([]byte, 0, len(text)+16)
	for i := range len(text) {
		switch ch := text[i]; {
		case 'a' <= ch && ch <= 'z', 'A' <= ch && ch <= 'Z', '0' <= ch && ch <= '9',
			ch == '-', ch == '_', ch == '~', ch == '.' && !dots, ch == '/' && slashes:
			b = append(b, ch)
		default:
			b = append(b, '%', hexDigits[ch>>4], hexDigits[ch&15])
		}
	}
	return string(b)
}

// queryOf is the query of a request while it is put together.
type queryOf []string

// add adds a parameter whose value is text.
func (q *queryOf) add(name, value string) {
	*q = append(*q, name+"="+url.QueryEscape(value))
}

// addBytes adds a parameter whose value is bytes: as they are where they are
// UTF-8, else as base64 under the name with 64 behind it.
func (q *queryOf) addBytes(name, value string) {
	if utf8.ValidString(value) {
		q.add(name, value)
		return
	}
	q.add(name+"64", base64.StdEncoding.EncodeToString([]byte(value)))
}

func (q queryOf) String() string { return strings.Join(q, "&") }
