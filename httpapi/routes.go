package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"trivet/trivetpb"
)

// kvPrefix comes before a key in a path.
const kvPrefix = "/v1/kv/"

// handler serves a call: it writes the answer, or returns the problem to answer
// with and has then written nothing.
type handler func(*call) *trivetpb.Problem

// resource is what a path names.
type resource struct {
	// path is the path. {key} or {name} at its end is all that comes behind,
	// slashes too; {id} is one part, and may have more behind it.
	path string
	// methods holds what the resource does. HEAD comes with GET.
	methods map[string]method
	// always is set where a node that is draining or overloaded answers too:
	// what tells it from a dead one.
	always bool
	// watch is set where requests stay open for as long as the caller likes, and
	// have a limit of their own.
	watch bool
}

type method struct {
	handle handler
	// params are the query parameters that the call knows beside timeout.
	params []string
}

// resources is everything there is. The OpenAPI document describes the same; a
// test holds the two together.
func (s *Server) resources() []*resource {
	return []*resource{
		{path: "/v1/kv/{key}", methods: map[string]method{
			http.MethodGet:    {s.getKey, with(readParams, "revision")},
			http.MethodPut:    {s.putKey, []string{"lease", "ttl", "prev"}},
			http.MethodDelete: {s.deleteKey, []string{"prev"}},
			http.MethodPost:   {s.addKey, []string{"add"}},
		}},
		{path: "/v1/batch", methods: map[string]method{
			http.MethodPost: {s.batch, readParams},
		}},
		{path: "/v1/txn", methods: map[string]method{
			http.MethodPost: {s.txn, readParams},
		}},
		{path: "/v1/kv", methods: map[string]method{
			http.MethodGet: {s.getRange, with(readParams, "revision", "prefix", "prefix64", "start", "start64", "end", "end64",
				"limit", "cursor", "keys_only", "count_only", "reverse", "delimiter")},
			http.MethodDelete: {s.deleteRange, []string{"prefix", "prefix64", "start", "start64", "end", "end64", "all"}},
		}},
		{path: "/v1/leases", methods: map[string]method{
			http.MethodPost: {s.grantLease, nil},
			http.MethodGet:  {s.listLeases, with(readParams, "limit", "cursor")},
		}},
		{path: "/v1/leases/{id}", methods: map[string]method{
			http.MethodGet:    {s.getLease, with(readParams, "limit")},
			http.MethodPut:    {s.keepLease, nil},
			http.MethodDelete: {s.revokeLease, nil},
		}},
		{path: "/v1/locks/{name}", methods: map[string]method{
			http.MethodPost:   {s.acquireLock, nil},
			http.MethodGet:    {s.getLock, readParams},
			http.MethodPut:    {s.keepLock, nil},
			http.MethodDelete: {s.releaseLock, []string{"token"}},
		}},
		{path: "/v1/sessions", methods: map[string]method{
			http.MethodPost: {s.openSession, nil},
		}},
		{path: "/v1/sessions/{id}", methods: map[string]method{
			http.MethodPut:    {s.keepSession, nil},
			http.MethodDelete: {s.closeSession, nil},
		}},
		{path: "/v1/snapshot", methods: map[string]method{
			http.MethodGet: {s.getSnapshot, nil},
			http.MethodPut: {s.putSnapshot, nil},
		}},
		{path: "/v1/watch", watch: true, methods: map[string]method{
			http.MethodGet: {s.watch, []string{"key", "key64", "prefix", "prefix64", "start", "start64", "end", "end64",
				"from_revision", "initial", "prev", "follow"}},
		}},
		{path: "/v1/cluster", methods: map[string]method{
			http.MethodGet: {s.cluster, nil},
		}},
		{path: "/v1/cluster/members", methods: map[string]method{
			http.MethodPost: {s.addMember, nil},
		}},
		{path: "/v1/cluster/members/{id}", methods: map[string]method{
			http.MethodDelete: {s.removeMember, nil},
		}},
		{path: "/v1/cluster/members/{id}/promote", methods: map[string]method{
			http.MethodPost: {s.promoteMember, nil},
		}},
		{path: "/v1/cluster/members/{id}/demote", methods: map[string]method{
			http.MethodPost: {s.demoteMember, nil},
		}},
		{path: "/v1/cluster/transfer", methods: map[string]method{
			http.MethodPost: {s.transfer, nil},
		}},
		{path: "/v1/status", always: true, methods: map[string]method{
			http.MethodGet: {s.status, nil},
		}},
		{path: "/livez", always: true, methods: map[string]method{
			http.MethodGet: {s.livez, nil},
		}},
		{path: "/readyz", always: true, methods: map[string]method{
			http.MethodGet: {s.readyz, []string{"max_lag"}},
		}},
		{path: "/metrics", always: true, methods: map[string]method{
			http.MethodGet: {s.metricsPage, nil},
		}},
		{path: "/v1/openapi.json", always: true, methods: map[string]method{
			http.MethodGet: {s.openAPI, nil},
		}},
	}
}

func with(params []string, more ...string) []string {
	return append(slices.Clone(params), more...)
}

// lookUp returns the method to call, or why there is none; allow is then the
// value of the Allow header.
func (rs *resource) lookUp(name string) (m method, allow string, p *trivetpb.Problem) {
	if name == http.MethodHead {
		name = http.MethodGet
	}
	m, ok := rs.methods[name]
	if ok {
		return m, "", nil
	}
	return m, rs.allow(), &trivetpb.Problem{
		Code:   trivetpb.Code_METHOD_NOT_ALLOWED,
		Detail: "the methods here are " + rs.allow(),
	}
}

// allow lists the methods of the resource, in the form of the Allow header.
func (rs *resource) allow() string {
	var names []string
	for name := range rs.methods {
		names = append(names, name)
		if name == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// ServeHTTP makes a resource something that mux can find; Server.ServeHTTP
// takes it from there and never calls this.
func (rs *resource) ServeHTTP(http.ResponseWriter, *http.Request) {
	panic("httpapi: a resource is called through its server")
}

// newRouter registers the resources. Paths are matched as they were sent, still
// encoded and never cleaned: net/http's ServeMux would redirect `//` and `..`,
// which belong to keys here. Methods are the resource's business, so that a 405
// can name them.
func newRouter(resources []*resource) *mux.Router {
	r := mux.NewRouter().UseEncodedPath().SkipClean(true)
	for _, rs := range resources {
		switch at := strings.IndexByte(rs.path, '{'); {
		case at < 0, strings.HasPrefix(rs.path[at:], "{id}"):
			r.Path(rs.path).Handler(rs)
		default:
			r.PathPrefix(rs.path[:at]).Handler(rs)
		}
	}
	return r
}

// find returns the resource that the request's path names. It asks the router
// for the match alone and not to serve: mux would copy the request and its
// context twice to pass on variables that nobody here needs.
func (s *Server) find(r *http.Request) (*resource, *trivetpb.Problem) {
	var m mux.RouteMatch
	if s.router.Match(r, &m) && m.MatchErr == nil {
		return m.Handler.(*resource), nil
	}
	return nil, &trivetpb.Problem{Code: trivetpb.Code_NOT_FOUND, Detail: "no such path"}
}

// pathKey returns the key in the path: everything after the prefix, decoded
// once. net/http has done that into URL.Path; the prefix has no escapes (the
// router matched it as sent), so it is as long there.
func pathKey(r *http.Request) (string, *trivetpb.Problem) {
	key := r.URL.Path[len(kvPrefix):]
	return key, checkKey(key)
}
