package httpapi

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"trivet/store"
	"trivet/trivetpb"
)

// maxIdempotencyKey is the longest Idempotency-Key, in bytes.
const maxIdempotencyKey = store.MaxIdempotencyKeyBytes

// identity is how a caller names a write, so that the state machine can tell a
// repeat of it from another one: by a seq of a session, by an idempotency key,
// or not at all. A write without one gets an identity of the node's for as long
// as the node holds the request.
type identity struct {
	session, seq, ack uint64
	key               string
}

// given reports whether the caller named the write: it may then repeat it.
func (id identity) given() bool { return id.session != 0 || id.key != "" }

// parseIdentity parses the Trivet-Session and Idempotency-Key headers, of which
// one may be given.
func parseIdentity(h http.Header) (id identity, p *trivetpb.Problem) {
	sessions, keys := h["Trivet-Session"], h["Idempotency-Key"]
	switch {
	case len(sessions) == 0 && len(keys) == 0:
		return id, nil
	case len(sessions) > 0 && len(keys) > 0:
		return id, badRequest("Trivet-Session and Idempotency-Key exclude each other")
	case len(sessions) > 1:
		return id, badRequest("Trivet-Session is given more than once")
	case len(keys) > 1:
		return id, badRequest("Idempotency-Key is given more than once")
	case len(keys) == 1:
		id.key = keys[0]
		return id, checkIdempotencyKey(id.key)
	}
	return parseSession(sessions[0])
}

func checkIdempotencyKey(key string) *trivetpb.Problem {
	if len(key) < 1 || len(key) > maxIdempotencyKey {
		return badRequest("Idempotency-Key has %d characters, it takes 1 to %d", len(key), maxIdempotencyKey)
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return badRequest("Idempotency-Key takes visible ASCII characters only, without spaces")
		}
	}
	return nil
}

// parseSession parses `<id>;seq=<n>;ack=<m>`, in this order and without spaces;
// ack may be left out.
func parseSession(text string) (identity, *trivetpb.Problem) {
	malformed := badRequest("Trivet-Session takes <id>;seq=<n>;ack=<m>, of which ack may be left out")
	number := func(part, name string) (uint64, bool) {
		digits, ok := strings.CutPrefix(part, name)
		n, isNumber := parseDigits(digits)
		return n, ok && isNumber && n <= maxNumber
	}
	var id identity
	var ok bool
	first, rest, _ := strings.Cut(text, ";")
	if id.session, ok = number(first, ""); !ok {
		return identity{}, malformed
	}
	second, third, hasAck := strings.Cut(rest, ";")
	if id.seq, ok = number(second, "seq="); !ok {
		return identity{}, malformed
	}
	if hasAck {
		if id.ack, ok = number(third, "ack="); !ok {
			return identity{}, malformed
		}
	}
	if wrong := id.wrong(); wrong != "" {
		return identity{}, badRequest("Trivet-Session: %s", wrong)
	}
	return id, nil
}

// wrong says what the numbers of a session cannot be, nothing for nothing.
func (id identity) wrong() string {
	switch {
	case id.session == 0:
		return "the session's id is 0, it is what POST /v1/sessions returned"
	case id.seq == 0:
		return "seq is 0, it counts from 1"
	case id.seq <= id.ack:
		return "seq " + strconv.FormatUint(id.seq, 10) + " is not above ack, which says that it has been answered"
	}
	return ""
}

// parsePromises parses the headers of a write that a caller relies on: its
// identity and its guards. It is done for every write in one place, so that no
// call can pass over one; a call that does not take them says so (bare).
func (c *call) parsePromises() (p *trivetpb.Problem) {
	if c.id, p = parseIdentity(c.r.Header); p != nil {
		return p
	}
	c.guards, p = parseGuards(c.r.Header["Trivet-Guard"])
	return p
}

// unguarded refuses guards where there is nothing that they could guard.
func (c *call) unguarded() *trivetpb.Problem {
	if len(c.guards) > 0 {
		return badRequest("Trivet-Guard does not go with this call")
	}
	return nil
}

// bare refuses guards and an identity.
func (c *call) bare() *trivetpb.Problem {
	switch {
	case c.id.session != 0:
		return badRequest("Trivet-Session does not go with this call")
	case c.id.key != "":
		return badRequest("Idempotency-Key does not go with this call")
	}
	return c.unguarded()
}

// stamp puts the guards and the identity that came with the request on its
// command, and returns it.
func (c *call) stamp(command *trivetpb.Command) *trivetpb.Command {
	command.Guards = c.guards
	switch {
	case c.id.key != "":
		command.Fingerprint = callFingerprint(command)
		command.IdempotencyKey = []byte(c.id.key)
	case c.id.session != 0:
		command.Session, command.Seq, command.Ack = c.id.session, c.id.seq, c.id.ack
	}
	return command
}

// A fingerprint tells a repeat of a request from another one under the same
// idempotency key. It is of what the request does: the operations with all that
// they were asked to do and to return, and the guards. How long the caller waits
// (?timeout=) and what it accepts is not in it. The encoding is that of the
// schema, which has no maps and gives equal messages equal bytes.

// fingerprintBytes is how many bytes of the SHA-256 are kept.
const fingerprintBytes = store.FingerprintBytes

// callFingerprint is that of a request of one command, which has its guards and
// no identity yet.
func callFingerprint(command *trivetpb.Command) []byte {
	return fingerprint("call", 1, func(int) marshaler { return command })
}

// batchFingerprint is that of a batch; its operations have no seq where there
// is an idempotency key.
func batchFingerprint(ops []*trivetpb.BatchOp) []byte {
	return fingerprint("batch", len(ops), func(i int) marshaler { return ops[i] })
}

type marshaler interface {
	MarshalVT() ([]byte, error)
}

func fingerprint(form string, n int, part func(i int) marshaler) []byte {
	h := sha256.New()
	h.Write([]byte("trivet " + form + " 1\n"))
	var size [binary.MaxVarintLen64]byte
	for i := range n {
		b, err := part(i).MarshalVT()
		if err != nil {
			panic(err) // it has no way to fail for a message that is whole
		}
		h.Write(size[:binary.PutUvarint(size[:], uint64(len(b)))])
		h.Write(b)
	}
	return h.Sum(nil)[:fingerprintBytes]
}

// keyOfPart is the idempotency key of one write of a batch. The first write has
// the caller's own key, so that it is the one that meets another request under
// that key, whatever that was; the others have their place behind a space, which
// no caller's key has. Of a key that leaves no room for it there is the hash, with
// two spaces behind it: no key that is short enough has that.
func keyOfPart(key string, first bool, place int) []byte {
	const room = maxIdempotencyKey - len(" 4095")
	b := make([]byte, 0, maxIdempotencyKey)
	switch {
	case first:
		return append(b, key...)
	case len(key) <= room:
		b = append(b, key...)
	default:
		hash := sha256.Sum256([]byte(key))
		b = append(hex.AppendEncode(b, hash[:]), ' ')
	}
	return strconv.AppendInt(append(b, ' '), int64(place), 10)
}
