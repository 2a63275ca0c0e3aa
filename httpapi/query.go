package httpapi

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"trivet/trivetpb"
)

// query is a parsed query string in which every parameter is known to the call
// and given once.
type query struct {
	params []param
	// timeout is ?timeout=, or its default.
	timeout time.Duration
}

type param struct{ name, value string }

// parseQuery parses raw for a call that knows the given parameters (and
// timeout, which every call knows). A parameter that the call does not know, or
// that is given twice, is refused by name: a typo must not quietly mean
// something else.
func parseQuery(raw string, known []string) (query, *trivetpb.Problem) {
	q := query{timeout: defaultTimeout}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		if strings.IndexByte(pair, ';') >= 0 {
			// Some parsers end a parameter here and some do not.
			return q, badRequest("the query has a bare ';', write it as %%3B")
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			return q, badRequest("the query has a malformed percent-escape")
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil {
			return q, badRequest("parameter %s has a malformed percent-escape", quote(name))
		}
		if name != "timeout" && !slices.Contains(known, name) {
			return q, badRequest("unknown parameter %s", quote(name))
		}
		if _, ok := q.get(name); ok {
			return q, badRequest("parameter %s is given more than once", name)
		}
		q.params = append(q.params, param{name, value})
	}
	return q, q.parseTimeout()
}

func (q *query) parseTimeout() *trivetpb.Problem {
	d, ok, p := q.duration("timeout")
	if p != nil || !ok {
		return p
	}
	if d > maxTimeout {
		return badRequest("parameter timeout is %v, the most is %v", d, maxTimeout)
	}
	q.timeout = d
	return nil
}

// get returns a parameter, and whether it was given.
func (q *query) get(name string) (string, bool) {
	for _, p := range q.params {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

// has reports whether any of the parameters was given.
func (q *query) has(names ...string) bool {
	return slices.ContainsFunc(q.params, func(p param) bool { return slices.Contains(names, p.name) })
}

// duration returns a parameter that is a Go duration above zero.
func (q *query) duration(name string) (time.Duration, bool, *trivetpb.Problem) {
	text, ok := q.get(name)
	if !ok {
		return 0, false, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, false, badRequest(`parameter %s is no duration such as "1.5s" or "200ms"`, name)
	}
	if d <= 0 {
		return 0, false, badRequest("parameter %s must be more than zero", name)
	}
	return d, true, nil
}

// uint returns a parameter that is a whole number from least to most, in
// decimal digits and nothing else.
func (q *query) uint(name string, least, most uint64) (uint64, bool, *trivetpb.Problem) {
	text, ok := q.get(name)
	if !ok {
		return 0, false, nil
	}
	n, ok := parseDigits(text)
	if !ok || n < least || n > most {
		return 0, false, badRequest("parameter %s must be a whole number from %d to %d", name, least, most)
	}
	return n, true, nil
}

// bool returns a parameter that is true or false; false where it is not given.
func (q *query) bool(name string) (bool, *trivetpb.Problem) {
	text, ok := q.get(name)
	switch {
	case !ok, text == "false":
		return false, nil
	case text == "true":
		return true, nil
	}
	return false, badRequest("parameter %s must be true or false", name)
}

// bytes returns a parameter that is given as text, or as base64 under its name
// with 64 behind it, but not as both.
func (q *query) bytes(name string) (value []byte, ok bool, _ *trivetpb.Problem) {
	text, isText := q.get(name)
	coded, isCoded := q.get(name + "64")
	switch {
	case isText && isCoded:
		return nil, false, badRequest("parameters %s and %s64 exclude each other", name, name)
	case isText:
		return []byte(text), true, nil
	case isCoded:
		value, ok := decodeBase64(coded)
		if !ok {
			return nil, false, badRequest("parameter %s64 is not standard base64 (a + in a query is written %%2B)", name)
		}
		return value, true, nil
	}
	return nil, false, nil
}

// parseDigits parses decimal digits without sign, spaces or leading zeros; what
// it takes, it would write the same way.
func parseDigits(text string) (uint64, bool) {
	if text == "" || text[0] == '+' || (text[0] == '0' && len(text) > 1) {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}

var base64Strict = base64.StdEncoding.Strict()

// decodeBase64 decodes standard base64, with padding, and without the line
// breaks that the standard library would pass over.
func decodeBase64(text string) ([]byte, bool) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, false
	}
	b, err := base64Strict.DecodeString(text)
	return b, err == nil
}

// quote makes a caller's text fit for a problem's detail: quoted, and cut where
// it is long.
func quote(text string) string {
	const most = 64
	if len(text) > most {
		return strconv.Quote(text[:most]) + "…"
	}
	return strconv.Quote(text)
}
