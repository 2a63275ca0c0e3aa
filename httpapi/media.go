package httpapi

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"trivet/trivetpb"
)

const (
	octetStream = "application/octet-stream"
	jsonType    = "application/json"
	ndjsonType  = "application/x-ndjson"
	eventStream = "text/event-stream"
	protobuf    = "application/x-protobuf"
	formType    = "application/x-www-form-urlencoded"
)

// negotiate returns which of the offers the Accept header likes best. The first
// offer is the default: it is taken where the header is missing, malformed, or
// asks for none of them. At equal quality a type that is named goes before one
// that only a wildcard covers: `application/json, */*` means JSON.
func negotiate(h http.Header, offers ...string) string {
	values := h["Accept"]
	if len(values) == 0 {
		return offers[0]
	}
	best, bestRank := offers[0], 0
	for _, offer := range offers {
		if rank := acceptRank(values, offer); rank > bestRank {
			best, bestRank = offer, rank
		}
	}
	return best
}

// acceptRank is how much the header likes the type: 0 not at all, else higher
// for more, quality first and how closely it is named second.
func acceptRank(values []string, mediaType string) int {
	rank, closest := 0, 0
	for _, value := range values {
		for value != "" {
			var entry string
			entry, value, _ = strings.Cut(value, ",")
			name, parameters, _ := strings.Cut(entry, ";")
			closeness := 0
			switch name = strings.TrimSpace(name); {
			case strings.EqualFold(name, mediaType):
				closeness = 3
			case strings.HasSuffix(name, "/*") && strings.HasPrefix(mediaType, strings.ToLower(name[:len(name)-1])):
				closeness = 2
			case name == "*/*":
				closeness = 1
			}
			// The closest entry decides, as RFC 9110, section 12.5.1, has it.
			if closeness <= closest {
				continue
			}
			closest = closeness
			if q := quality(parameters); q > 0 {
				rank = q*4 + closeness
			} else {
				rank = 0
			}
		}
	}
	return rank
}

// quality returns the q parameter in thousandths; 1000 where there is none.
func quality(parameters string) int {
	for parameters != "" {
		var p string
		p, parameters, _ = strings.Cut(parameters, ";")
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(name, "q") {
			continue
		}
		q, err := strconv.ParseFloat(value, 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return int(q * 1000)
	}
	return 1000
}

// documentType returns which of the known types the body of a txn or batch has.
// JSON is also taken where no type is given, and under the one that `curl -d`
// gives: the callers of those do mean JSON, and a body that is none is refused
// anyway. That a web page could send these without asking the browser's leave is
// no reason against it: ServeHTTP refuses writes from other origins whatever
// their type.
func documentType(h http.Header, known ...string) (string, *trivetpb.Problem) {
	given := h.Get("Content-Type")
	if given == "" || given == jsonType { // which is always known
		return jsonType, nil
	}
	name, parameters, err := mime.ParseMediaType(given)
	if err != nil {
		return "", unsupportedMediaType("the Content-Type %s is malformed", quote(given))
	}
	if charset := parameters["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", unsupportedMediaType("the charset %s is not supported, only UTF-8 is", quote(charset))
	}
	if name == formType {
		return jsonType, nil
	}
	for _, k := range known {
		if name == k {
			return k, nil
		}
	}
	return "", unsupportedMediaType("the Content-Type %s is not supported here, only %s", quote(name), strings.Join(known, " and "))
}
