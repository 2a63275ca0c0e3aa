package trivetpb

import "net/http"

// CodeInfo is how a Code appears in the HTTP API.
type CodeInfo struct {
	// Name is the problem's "code".
	Name string
	// Status is the HTTP status.
	Status int
	// Title is the problem's "title": the same for every problem of the code.
	Title string
	// Retryable says that the very same request may succeed later.
	Retryable bool
}

// codes is the one table between codes, names and statuses; the server reads
// it one way (Info), the client the other (CodeByName).
var codes = map[Code]CodeInfo{
	Code_OK:                     {"ok", http.StatusOK, "OK", false},
	Code_BAD_REQUEST:            {"bad_request", http.StatusBadRequest, "The request is malformed", false},
	Code_BAD_KEY:                {"bad_key", http.StatusBadRequest, "The key is empty or too long", false},
	Code_DUPLICATE_KEY:          {"duplicate_key", http.StatusBadRequest, "A transaction writes a key twice", false},
	Code_FUTURE_REVISION:        {"future_revision", http.StatusBadRequest, "The revision does not exist yet", false},
	Code_UNAUTHENTICATED:        {"unauthenticated", http.StatusUnauthorized, "No valid token was given", false},
	Code_PERMISSION_DENIED:      {"permission_denied", http.StatusForbidden, "The token does not allow this", false},
	Code_KEY_NOT_FOUND:          {"key_not_found", http.StatusNotFound, "There is no such key", false},
	Code_LEASE_NOT_FOUND:        {"lease_not_found", http.StatusNotFound, "There is no such lease", false},
	Code_NOT_FOUND:              {"not_found", http.StatusNotFound, "There is nothing here", false},
	Code_METHOD_NOT_ALLOWED:     {"method_not_allowed", http.StatusMethodNotAllowed, "The method is not allowed here", false},
	Code_UNSUPPORTED_MEDIA_TYPE: {"unsupported_media_type", http.StatusUnsupportedMediaType, "The body's media type is not supported", false},
	Code_NOT_A_NUMBER:           {"not_a_number", http.StatusConflict, "The value is not a decimal number", false},
	Code_OVERFLOW:               {"overflow", http.StatusConflict, "The counter would leave the range of int64", false},
	Code_SESSION_EXPIRED:        {"session_expired", http.StatusConflict, "The session has expired", false},
	Code_MEMBER_CONFLICT:        {"member_conflict", http.StatusConflict, "The membership does not allow this", false},
	Code_COMPACTED:              {"compacted", http.StatusGone, "The revision is no longer retained", false},
	Code_PRECONDITION_FAILED:    {"precondition_failed", http.StatusPreconditionFailed, "The condition does not hold", false},
	Code_GUARD_FAILED:           {"guard_failed", http.StatusPreconditionFailed, "The guarding lock is not held", false},
	Code_TOO_LARGE:              {"too_large", http.StatusRequestEntityTooLarge, "The request or its answer is too large", false},
	Code_HEADERS_TOO_LARGE:      {"too_large", http.StatusRequestHeaderFieldsTooLarge, "The request's headers are too large", false},
	Code_IDEMPOTENCY_KEY_REUSED: {"idempotency_key_reused", http.StatusUnprocessableEntity, "The idempotency key belongs to another request", false},
	Code_LOCKED:                 {"locked", http.StatusLocked, "The lock is held", true},
	Code_OVERLOADED:             {"overloaded", http.StatusTooManyRequests, "A queue is full", true},
	Code_NO_LEADER:              {"no_leader", http.StatusServiceUnavailable, "The cluster has no leader", true},
	Code_NOT_FRESH:              {"not_fresh", http.StatusServiceUnavailable, "The node cannot prove the freshness that was asked for", true},
	Code_DRAINING:               {"draining", http.StatusServiceUnavailable, "The node is stopping", true},
	Code_TIMEOUT:                {"timeout", http.StatusGatewayTimeout, "The cluster did not answer in time", true},
	Code_QUOTA_EXCEEDED:         {"quota_exceeded", http.StatusInsufficientStorage, "The store is full", false},
	Code_INTERNAL:               {"internal", http.StatusInternalServerError, "The node failed", false},
}

var codesByName = func() map[string]Code {
	m := make(map[string]Code, len(codes))
	for c, info := range codes {
		if c != Code_HEADERS_TOO_LARGE { // shares its name with TOO_LARGE
			m[info.Name] = c
		}
	}
	return m
}()

// Info returns how the code appears in the HTTP API; an unknown code appears
// as Code_INTERNAL.
func (c Code) Info() CodeInfo {
	if info, ok := codes[c]; ok {
		return info
	}
	return codes[Code_INTERNAL]
}

// CodeByName returns the code that a problem's "code" names.
func CodeByName(name string) (Code, bool) {
	c, ok := codesByName[name]
	return c, ok
}

// Error makes a Problem an error: "precondition_failed: mod_revision is 7".
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Code.Info().Name
	}
	return p.Code.Info().Name + ": " + p.Detail
}
