package httpapi

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
)

// The heads of simple requests: those of the calls that are made most, as most clients
// write them. What is taken here is a part of what RFC 9112 allows, chosen so that it has
// one meaning: whatever else comes is net/http's to understand or to refuse, from
// that request on. So nothing is ever refused here, and nothing is guessed.

const (
	// maxSimpleHead is the longest head, request line and fields, that is simple.
	maxSimpleHead = 4 << 10
	// maxSimpleBody is the longest body of a request that is simple.
	maxSimpleBody = 256 << 10
)

// simpleMethods are the methods of simple requests.
var simpleMethods = []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete}

// simpleFields are the canonical names of the header fields that a simple request may
// have, by their names in lower case. No other field changes what a simple call does, but
// one that is not known here may change how the request is to be read.
var simpleFields = func() map[string]string {
	names := map[string]string{}
	for _, name := range []string{
		"Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Connection",
		"Content-Encoding", "Content-Length", "Content-Type", "Host", "Idempotency-Key", "If-Match", "If-None-Match",
		"Pragma", "Priority", "Traceparent", "Tracestate", "Trivet-Guard", "Trivet-Part-Bytes", "Trivet-Session",
		"User-Agent", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto",
		"X-Real-Ip", "X-Request-Id",
	} {
		names[strings.ToLower(name)] = name
	}
	return names
}()

// simpleHead is what a head says. It is used again for the next of its connection.
type simpleHead struct {
	method, target string
	url            url.URL
	// header is that of the lines in lines: most clients send the same fields with each
	// request, so most are parsed once.
	header http.Header
	lines  []byte
	host   string
	length int // of the body
}

// parse parses the head that data begins with, and returns how long it is; 0 where it
// is not whole, or not simple.
func (h *simpleHead) parse(data []byte) int {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 || end+4 > maxSimpleHead {
		return 0
	}
	line, lines, _ := bytes.Cut(data[:end+2], []byte("\r\n"))
	if !h.parseLine(line) || !h.parseFields(lines) {
		return 0
	}
	return end + 4
}

// parseLine parses the request line.
func (h *simpleHead) parseLine(line []byte) bool {
	line, ok := bytes.CutSuffix(line, []byte(" HTTP/1.1"))
	if !ok {
		return false
	}
	method, target, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return false
	}
	h.method = ""
	for _, m := range simpleMethods {
		if string(method) == m {
			h.method = m
		}
	}
	if h.method == "" || !bytes.HasPrefix(target, []byte("/v1/")) {
		return false
	}
	escaped := false
	for _, b := range target {
		if b <= ' ' || b > '~' || b == '#' {
			return false
		}
		escaped = escaped || b == '%'
	}
	h.target = string(target)
	path, query, hasQuery := strings.Cut(h.target, "?")
	h.url = url.URL{Path: path, RawQuery: query, ForceQuery: hasQuery && query == ""}
	if escaped && strings.IndexByte(path, '%') >= 0 {
		var err error
		if h.url.Path, err = url.PathUnescape(path); err != nil {
			return false
		}
	}
	return true
}

// simpleResource returns what the target names, where that is served here. As the router
// does, it looks at the path as it was sent.
func (s *Server) simpleResource(target string) *resource {
	path, _, _ := strings.Cut(target, "?")
	switch {
	case strings.HasPrefix(path, kvPrefix):
		return s.simple.key
	case path == "/v1/batch":
		return s.simple.batch
	case path == "/v1/txn":
		return s.simple.txn
	case path == "/v1/kv":
		return s.simple.keys
	}
	return nil
}

// parseFields parses the header fields, a line each with its end.
func (h *simpleHead) parseFields(lines []byte) bool {
	if h.host != "" && bytes.Equal(lines, h.lines) {
		return true
	}
	if h.header == nil {
		h.header = http.Header{}
	}
	clear(h.header)
	h.host, h.length = "", 0
	h.lines = append(h.lines[:0], lines...)
	for len(lines) > 0 {
		line, rest, ok := bytes.Cut(lines, []byte("\r\n"))
		if !ok || !h.parseField(line) {
			h.host = "" // what is in header is a part
			return false
		}
		lines = rest
	}
	return h.host != ""
}

func (h *simpleHead) parseField(line []byte) bool {
	name, value, ok := bytes.Cut(line, []byte(":"))
	var lower [24]byte // more than the longest of simpleFields
	if !ok || len(name) > len(lower) {
		return false
	}
	for i, b := range name {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		lower[i] = b
	}
	canonical, ok := simpleFields[string(lower[:len(name)])]
	if !ok {
		return false
	}
	value = bytes.Trim(value, " \t")
	for _, b := range value {
		if b < ' ' || b > '~' {
			return false
		}
	}
	switch canonical {
	case "Host":
		h.host, ok = simpleHost(value, h.host)
		return ok // it is no field of a Request's Header
	case "Connection":
		return bytes.EqualFold(value, []byte("keep-alive"))
	case "Content-Length":
		if len(h.header[canonical]) > 0 {
			return false
		}
		length, ok := parseDigits(string(value))
		if !ok || length > maxSimpleBody {
			return false
		}
		h.length = int(length)
	}
	h.header[canonical] = append(h.header[canonical], string(value))
	return true
}

// simpleHost takes the host, which is given once.
func simpleHost(value []byte, before string) (string, bool) {
	if len(value) == 0 || before != "" {
		return "", false
	}
	for _, b := range value {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9',
			b == '.', b == '-', b == '_', b == ':', b == '[', b == ']':
		default:
			return "", false
		}
	}
	return string(value), true
}
