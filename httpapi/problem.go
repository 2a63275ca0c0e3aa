package httpapi

import (
	"fmt"
	"net/http"
	"strconv"

	"trivet/trivetpb"
)

// retryAfter is the Retry-After of 429 and 503, in seconds: a change of leader
// and a full queue are both over well within the least that HTTP can say.
const retryAfter = "1"

const problemType = "application/problem+json"

// writeProblem is the one place that errors go out from. The headers that the
// handler has set stay (Allow, Trivet-Consistency); the body goes with every
// method but HEAD.
func (c *call) writeProblem(p *trivetpb.Problem) {
	status := p.Code.Info().Status
	c.header()
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		c.set("Retry-After", retryAfter)
	}
	c.set("Content-Type", problemType)
	// An answer that the handler had begun to describe and then gave up.
	c.unset("Etag")

	buf := takeBuffer()
	defer buf.release()
	buf.b = appendProblem(buf.b, p)
	buf.b = append(buf.b, '\n')
	c.set("Content-Length", strconv.Itoa(len(buf.b)))
	c.writeHead(status)
	c.write(buf.b)
}

// appendProblem appends the problem as RFC 9457 JSON. The members beside the
// standard ones are those that API.md gives the code.
func appendProblem(b []byte, p *trivetpb.Problem) []byte {
	info := p.Code.Info()
	b = append(b, `{"type":"urn:trivet:problem:`...)
	b = append(b, info.Name...)
	b = append(b, `","title":`...)
	b = appendString(b, info.Title)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(info.Status), 10)
	if p.Detail != "" {
		b = append(b, `,"detail":`...)
		b = appendString(b, p.Detail)
	}
	b = append(b, `,"code":"`...)
	b = append(b, info.Name...)
	b = append(b, `","outcome":"`...)
	if p.Unknown {
		b = append(b, "unknown"...)
	} else {
		b = append(b, "not_applied"...)
	}
	b = append(b, `","retryable":`...)
	b = strconv.AppendBool(b, info.Retryable)
	switch p.Code {
	case trivetpb.Code_PRECONDITION_FAILED:
		b = appendNumber(b, `,"mod_revision":`, p.ModRevision)
	case trivetpb.Code_COMPACTED:
		b = appendNumber(b, `,"compact_revision":`, p.CompactRevision)
		b = appendNumber(b, `,"revision":`, p.Revision)
	case trivetpb.Code_FUTURE_REVISION:
		b = appendNumber(b, `,"revision":`, p.Revision)
	case trivetpb.Code_TOO_LARGE, trivetpb.Code_HEADERS_TOO_LARGE:
		b = appendNumber(b, `,"limit":`, p.Limit)
	case trivetpb.Code_LOCKED:
		if p.Holder != nil {
			b = append(b, `,"holder":`...)
			b = appendHolder(b, p.Holder)
		}
	}
	return append(b, '}')
}

// badRequest says what is wrong with the request in one sentence.
func badRequest(format string, args ...any) *trivetpb.Problem {
	return &trivetpb.Problem{Code: trivetpb.Code_BAD_REQUEST, Detail: fmt.Sprintf(format, args...)}
}

func tooLarge(limit int, format string, args ...any) *trivetpb.Problem {
	return &trivetpb.Problem{Code: trivetpb.Code_TOO_LARGE, Detail: fmt.Sprintf(format, args...), Limit: uint64(limit)}
}

func unsupportedMediaType(format string, args ...any) *trivetpb.Problem {
	return &trivetpb.Problem{Code: trivetpb.Code_UNSUPPORTED_MEDIA_TYPE, Detail: fmt.Sprintf(format, args...)}
}

func keyNotFound() *trivetpb.Problem {
	return &trivetpb.Problem{Code: trivetpb.Code_KEY_NOT_FOUND}
}

// checkKey holds a key to the bounds that every call gives it.
func checkKey(key string) *trivetpb.Problem {
	switch {
	case key == "":
		return &trivetpb.Problem{Code: trivetpb.Code_BAD_KEY, Detail: "the key is empty"}
	case len(key) > maxKeyBytes:
		return &trivetpb.Problem{Code: trivetpb.Code_BAD_KEY,
			Detail: fmt.Sprintf("the key has %d bytes, the most is %d", len(key), maxKeyBytes)}
	}
	return nil
}
