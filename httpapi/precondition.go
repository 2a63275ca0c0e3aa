package httpapi

import (
	"net/http"
	"strconv"

	"trivet/trivetpb"
)

// match is what an If-Match or If-None-Match header names.
type match struct {
	given bool
	// any is `*`; else revision is the one of `"<revision>"`.
	any      bool
	revision uint64
}

// parseMatch parses the named header. Taken are `*` and one strong entity tag
// as the ETag header gives it. A weak tag would promise less than the answer
// holds, and a list would need a compare that the log does not have.
func parseMatch(h http.Header, name string) (match, *trivetpb.Problem) {
	values := h[name]
	switch {
	case len(values) == 0:
		return match{}, nil
	case len(values) > 1:
		return match{}, badRequest(`%s takes one "<revision>" or *, not a list`, name)
	}
	text := values[0]
	if text == "*" {
		return match{given: true, any: true}, nil
	}
	if len(text) > 2 && text[0] == '"' && text[len(text)-1] == '"' {
		if n, ok := parseDigits(text[1 : len(text)-1]); ok && n > 0 && n <= maxNumber {
			return match{given: true, revision: n}, nil
		}
	}
	if len(text) > 2 && text[:2] == "W/" {
		return match{}, badRequest(`%s takes a strong "<revision>", not a weak one`, name)
	}
	return match{}, badRequest(`%s takes one "<revision>" in quotes, as ETag gives it, or *`, name)
}

// parseMatches parses both headers, of which one may be given.
func parseMatches(h http.Header) (ifMatch, ifNoneMatch match, p *trivetpb.Problem) {
	if ifMatch, p = parseMatch(h, "If-Match"); p != nil {
		return
	}
	if ifNoneMatch, p = parseMatch(h, "If-None-Match"); p != nil {
		return
	}
	if ifMatch.given && ifNoneMatch.given {
		p = badRequest("If-Match and If-None-Match exclude each other")
	}
	return
}

// writePrecondition is what the headers of a PUT or DELETE ask for, nil for
// nothing.
func writePrecondition(h http.Header) (*trivetpb.Precondition, *trivetpb.Problem) {
	ifMatch, ifNoneMatch, p := parseMatches(h)
	switch {
	case p != nil:
		return nil, p
	case ifMatch.any:
		return &trivetpb.Precondition{Kind: trivetpb.Precondition_EXISTS}, nil
	case ifMatch.given:
		return &trivetpb.Precondition{Kind: trivetpb.Precondition_MOD_REVISION, ModRevision: ifMatch.revision}, nil
	case ifNoneMatch.any:
		return &trivetpb.Precondition{Kind: trivetpb.Precondition_ABSENT}, nil
	case ifNoneMatch.given:
		return nil, badRequest("If-None-Match takes * on a write")
	}
	return nil, nil
}

// noPrecondition refuses both headers where the call would have to pass over
// them: a caller that sets one relies on it.
func noPrecondition(h http.Header) *trivetpb.Problem {
	for _, name := range []string{"If-Match", "If-None-Match"} {
		if len(h[name]) > 0 {
			return badRequest("%s is not supported here", name)
		}
	}
	return nil
}

// entityTag is the ETag of an item.
func entityTag(modRevision uint64) string {
	b := make([]byte, 0, 22)
	b = append(b, '"')
	b = strconv.AppendUint(b, modRevision, 10)
	return string(append(b, '"'))
}
