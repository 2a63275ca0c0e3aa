package httpapi

import (
	"bytes"
	"net/url"
	"slices"
	"strings"

	"trivet/store"
	"trivet/trivetpb"
)

const (
	// maxGuards is the most guards of one write.
	maxGuards = store.MaxGuards
	// maxLockName is the longest name of a lock, in bytes.
	maxLockName = store.MaxLockNameBytes
)

// parseGuards parses the Trivet-Guard headers: `<name>=<token>`, several in one
// header with commas between them, or several headers. A name is percent-encoded
// as it is in a path, and also where it has a comma; its `=` may stay, since the
// token stands behind the last one.
func parseGuards(values []string) ([]*trivetpb.Guard, *trivetpb.Problem) {
	var guards []*trivetpb.Guard
	for _, value := range values {
		for more := true; more; {
			var part string
			part, value, more = strings.Cut(value, ",")
			if len(guards) == maxGuards {
				return nil, tooManyGuards()
			}
			guard, p := parseGuard(strings.Trim(part, " \t"))
			if p != nil {
				return nil, p
			}
			guards = append(guards, guard)
		}
	}
	return guards, checkGuards(guards)
}

func parseGuard(text string) (*trivetpb.Guard, *trivetpb.Problem) {
	at := strings.LastIndexByte(text, '=')
	if at < 0 {
		return nil, badRequest("Trivet-Guard takes <name>=<token>, several with commas between them")
	}
	for i := range at {
		if text[i] <= ' ' || text[i] > '~' {
			return nil, badRequest("Trivet-Guard: the name of the lock is to be percent-encoded")
		}
	}
	name, err := url.PathUnescape(text[:at])
	if err != nil {
		return nil, badRequest("Trivet-Guard: the name of the lock has a malformed percent-escape")
	}
	token, ok := parseDigits(text[at+1:])
	if !ok {
		return nil, badRequest("Trivet-Guard: the token of lock %s is no whole number", quote(name))
	}
	return &trivetpb.Guard{Lock: []byte(name), Token: token}, nil
}

// checkGuards holds the guards of one write to their bounds and puts them in
// order: which of them comes first means nothing, so that it must not make
// another request of a repeat.
func checkGuards(guards []*trivetpb.Guard) *trivetpb.Problem {
	if len(guards) == 0 {
		return nil
	}
	if len(guards) > maxGuards {
		return tooManyGuards()
	}
	for _, g := range guards {
		if p := checkLockName(g.GetLock()); p != nil {
			return p
		}
		if token := g.GetToken(); token == 0 || token > maxNumber {
			return badRequest("a guard on lock %s has token %d, it must be from 1 to %d", quote(string(g.Lock)), token, uint64(maxNumber))
		}
	}
	slices.SortFunc(guards, func(a, b *trivetpb.Guard) int { return bytes.Compare(a.Lock, b.Lock) })
	for i := 1; i < len(guards); i++ {
		if bytes.Equal(guards[i-1].Lock, guards[i].Lock) {
			return badRequest("two guards name lock %s", quote(string(guards[i].Lock)))
		}
	}
	return nil
}

// mergeGuards returns the guards of both, which were checked each by itself.
func mergeGuards(a, b []*trivetpb.Guard) ([]*trivetpb.Guard, *trivetpb.Problem) {
	switch {
	case len(a) == 0:
		return b, nil
	case len(b) == 0:
		return a, nil
	}
	guards := slices.Concat(a, b)
	return guards, checkGuards(guards)
}

func tooManyGuards() *trivetpb.Problem {
	return badRequest("a write has more than %d guards", maxGuards)
}

func checkLockName(name []byte) *trivetpb.Problem {
	switch {
	case len(name) == 0:
		return badRequest("the name of the lock is empty")
	case len(name) > maxLockName:
		return badRequest("the name of the lock has %d bytes, the most is %d", len(name), maxLockName)
	}
	return nil
}

// The fields of a guard in JSON, by their place.
const (
	guardLock = iota
	guardLock64
	guardToken
)

var guardFields = []string{guardLock: "lock", guardLock64: "lock64", guardToken: "token"}

// decodeGuards reads the guards of a txn or of an operation of a batch.
func (d *decoder) decodeGuards() ([]*trivetpb.Guard, *jsonError) {
	d.skipSpace()
	at := d.pos
	var guards []*trivetpb.Guard
	err := d.array(func() *jsonError {
		if err := d.element(); err != nil {
			return err
		}
		guard, err := d.decodeGuard()
		if err == nil && len(guards) <= maxGuards {
			guards = append(guards, guard)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if p := checkGuards(guards); p != nil {
		d.pos = at
		return nil, d.fail("%s", p.Detail)
	}
	return guards, nil
}

func (d *decoder) decodeGuard() (*trivetpb.Guard, *jsonError) {
	d.skipSpace()
	at := d.pos
	guard := &trivetpb.Guard{}
	seen, err := d.object(guardFields, func(place int) (err *jsonError) {
		switch place {
		case guardLock:
			guard.Lock, err = d.bytes(fieldKey)
		case guardLock64:
			guard.Lock, err = d.bytes(fieldKey64)
		case guardToken:
			guard.Token, err = d.uint(maxNumber)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	wrong := ""
	switch lock := seen & fields(guardLock, guardLock64); {
	case lock == 0:
		wrong = "field lock is missing"
	case lock&(lock-1) != 0:
		wrong = "fields lock and lock64 exclude each other"
	case !seen.has(guardToken):
		wrong = "field token is missing"
	default:
		return guard, nil
	}
	d.pos = at
	return nil, d.fail("%s", wrong)
}
