package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"trivet/client"
)

// plainLoad sends each request of a bench by itself over HTTP, as a program does that
// has nothing but an HTTP library: writes to the leader, reads to the members in turn.
type plainLoad struct {
	http    *http.Client
	token   string
	timeout time.Duration
	leader  string
	members []string
	turn    atomic.Uint32
	query   string
}

func newPlainLoad(ctx context.Context, f *benchFlags, c *client.Client, cmd *cobra.Command) (*plainLoad, error) {
	told, err := c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	l := &plainLoad{
		http:  &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: f.clients}},
		token: f.token, timeout: f.timeout,
	}
	if f.endpointsOnly { // each passes writes on
		told.Members = nil
		l.members, l.leader = f.endpoints, f.endpoints[0]
	}
	for _, m := range told.Members {
		if m.API == "" {
			continue
		}
		l.members = append(l.members, m.API)
		if m.Leader {
			l.leader = m.API
		}
	}
	if l.leader == "" {
		return nil, failf(exitUnserved, "no leader is known")
	}
	q := url.Values{"timeout": {f.timeout.String()}}
	for _, name := range []string{"consistency", "max-staleness", "min-revision"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed {
			q.Set(map[string]string{"consistency": name, "max-staleness": "max_staleness", "min-revision": "min_revision"}[name], flag.Value.String())
		}
	}
	l.query = q.Encode()
	return l, nil
}

func (l *plainLoad) close() { l.http.CloseIdleConnections() }

func (l *plainLoad) put(ctx context.Context, key string, value []byte) error {
	// A write has no freshness.
	return l.do(ctx, http.MethodPut, l.leader+"/v1/kv/"+key, value)
}

func (l *plainLoad) get(ctx context.Context, key string) error {
	member := l.members[int(l.turn.Add(1))%len(l.members)]
	return l.do(ctx, http.MethodGet, member+"/v1/kv/"+key+"?"+l.query, nil)
}

func (l *plainLoad) do(ctx context.Context, method, target string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if l.token != "" {
		req.Header.Set("Authorization", "Bearer "+l.token)
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return &client.Error{Code: "unavailable", Detail: err.Error()}
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return &client.Error{Code: "unavailable", Detail: err.Error()}
	}
	if resp.StatusCode >= 300 {
		return &client.Error{Code: fmt.Sprintf("status_%d", resp.StatusCode), Status: resp.StatusCode}
	}
	return nil
}
