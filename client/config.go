package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Config is how a Client is opened. Zero values mean the stated defaults; Open
// checks the whole.
type Config struct {
	// Endpoints are URLs of nodes, such as "http://127.0.0.1:7071": any of them
	// will do to find the others. A path in front of the API's own is kept, for
	// nodes behind a proxy. Default: http://127.0.0.1:7071, 7072 and 7073.
	//
	// All are of one cluster. The client belongs to that of the first node that
	// answers, and takes no answer of another's (code wrong_cluster).
	Endpoints []string
	// Token is the secret that goes with every request. Default: none.
	Token string
	// Timeout bounds each call whose context has no deadline. A list has it for
	// each of its pages. Default 10 s.
	Timeout time.Duration
	// TLS is used for https endpoints; it is cloned. Default: the system's roots.
	TLS *tls.Config
	// DisableDiscovery keeps to Endpoints. Without it they are only where the
	// members' own addresses are learned from, and the last resort where none
	// of those answers. Set it where clients cannot reach the addresses that
	// the members advertise: behind a load balancer, which is then the one endpoint.
	//
	// Names of hosts are looked up whenever a connection is made, and idle ones are
	// closed every minute, so that a name that points elsewhere is noticed.
	DisableDiscovery bool
	// DisableSessions has writes go without an identity, for a program that writes
	// once and ends: it saves the opening and closing of a session. Such a write is
	// sent again only where it was certainly not applied.
	DisableSessions bool
	// Transport, where set, carries the requests instead of connections of the
	// client's own: a handler in the same process, say. It must send a request
	// once at most. The client cannot see whether a byte was sent through it,
	// so a write that fails there has an unknown outcome unless the error is
	// one of dialling (*net.OpError). Close does not close it. For Watch it must
	// return an answer as soon as its headers are there, and its body as it comes.
	Transport http.RoundTripper
	// DialContext, where set, makes the connections: through a proxy, over a Unix
	// socket, in memory (trivettest). It gets "tcp" and HOST:PORT, has two seconds, and
	// its connections belong to the client. All else stays as it is without it. Default:
	// net.Dialer. Not with Transport.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// MaxConnsPerNode bounds the connections to one node; a call that needs one
	// more waits for one, and its context. Half of them are for batches, which take
	// others where those are in use. Default 512. Not with Transport.
	MaxConnsPerNode int
	// MaxResponseBytes bounds one answer; a larger one fails the call. The
	// default, 64 MiB, holds the largest page of a list.
	MaxResponseBytes int64
	// Logger is told what the client gets over by itself, at debug level, and
	// what looks like a misconfiguration, as a warning. Default: nobody.
	Logger *slog.Logger
}

var defaultEndpoints = []string{"http://127.0.0.1:7071", "http://127.0.0.1:7072", "http://127.0.0.1:7073"}

// withDefaults fills in the zero values and refuses what cannot be meant. It
// returns the endpoints parsed.
func (c Config) withDefaults() (Config, []*url.URL, error) {
	if len(c.Endpoints) == 0 {
		c.Endpoints = defaultEndpoints
	}
	var endpoints []*url.URL
	for _, text := range c.Endpoints {
		u, err := parseEndpoint(text)
		if err != nil {
			return c, nil, fmt.Errorf("endpoint %q: %w", text, err)
		}
		if slices.ContainsFunc(endpoints, func(e *url.URL) bool { return e.String() == u.String() }) {
			return c, nil, fmt.Errorf("endpoint %q is given twice", text)
		}
		endpoints = append(endpoints, u)
	}
	for i := range len(c.Token) {
		if c.Token[i] <= ' ' || c.Token[i] > '~' {
			// The token itself must not end up in a log.
			return c, nil, fmt.Errorf("the token has a byte at %d that is no visible ASCII", i)
		}
	}
	if c.Transport != nil && c.TLS != nil {
		return c, nil, errors.New("TLS and Transport exclude each other: a Transport makes its own connections")
	}
	if c.Transport != nil && c.DialContext != nil {
		return c, nil, errors.New("DialContext and Transport exclude each other: a Transport makes its own connections")
	}
	if c.Transport != nil && c.MaxConnsPerNode != 0 {
		return c, nil, errors.New("MaxConnsPerNode and Transport exclude each other: a Transport makes its own connections")
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"Timeout", int64(c.Timeout)},
		{"MaxConnsPerNode", int64(c.MaxConnsPerNode)},
		{"MaxResponseBytes", c.MaxResponseBytes},
	} {
		if f.value < 0 {
			return c, nil, fmt.Errorf("%s is negative", f.name)
		}
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.MaxConnsPerNode == 0 {
		c.MaxConnsPerNode = 512
	}
	if c.MaxResponseBytes == 0 {
		c.MaxResponseBytes = 64 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, endpoints, nil
}

// parseEndpoint parses the URL of a node.
func parseEndpoint(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("need a URL such as http://127.0.0.1:7071")
	case u.Hostname() == "":
		return nil, errors.New("the host is missing")
	case u.User != nil:
		return nil, errors.New("a user and password are not taken, use Token")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("a query or fragment is not taken")
	}
	return &url.URL{
		Scheme:  u.Scheme,
		Host:    strings.ToLower(u.Host),
		Path:    strings.TrimRight(u.Path, "/"),
		RawPath: strings.TrimRight(u.RawPath, "/"),
	}, nil
}
