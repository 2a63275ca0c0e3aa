package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"trivet/client"
	"trivet/trivetpb"
)

// What the client has no call for is done by plain HTTP, here and nowhere else:
// asking one certain node about itself, and passing on a document as it is.

// rawClient sends requests to nodes.
type rawClient struct {
	http  *http.Client
	token string
}

func newRawClient(token string) *rawClient {
	return &rawClient{token: token, http: &http.Client{
		// No proxy from the environment for addresses that are most often on this
		// machine or next door, and no kept connections: the first failure to
		// write would then leave open whether anything was sent.
		Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("a redirect, which no node answers with")
		},
	}}
}

// maxAnswer bounds the answers that are held in memory: more than a txn may
// return.
const maxAnswer = 128 << 20

// do sends a request and returns the whole answer.
func (c *rawClient) do(ctx context.Context, method, target string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The URL is the caller's to name.
		if whole := (*url.Error)(nil); errors.As(err, &whole) {
			err = whole.Err
		}
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("an answer of more than %v", size(maxAnswer))
	}
	return resp.StatusCode, answer, err
}

// problem is the JSON of an error of the API.
type problem struct {
	Code      string `json:"code"`
	Title     string `json:"title"`
	Detail    string `json:"detail"`
	Outcome   string `json:"outcome"`
	Retryable bool   `json:"retryable"`
}

// nodeStatus is what GET /v1/status answers.
type nodeStatus struct {
	Node            string `json:"node"`
	Cluster         string `json:"cluster"`
	Role            string `json:"role"`
	Leader          string `json:"leader"`
	Term            uint64 `json:"term"`
	CommitIndex     uint64 `json:"commit_index"`
	AppliedIndex    uint64 `json:"applied_index"`
	Revision        uint64 `json:"revision"`
	CompactRevision uint64 `json:"compact_revision"`
	StateHash       string `json:"state_hash"`
	Keys            uint64 `json:"keys"`
	Bytes           uint64 `json:"bytes"`
	Watchers        uint64 `json:"watchers"`
	Uptime          string `json:"uptime"`
	Version         string `json:"version"`
	Failed          string `json:"failed"`
}

// nodeAnswer is what a node says about itself: its status, and whether it can
// serve.
type nodeAnswer struct {
	nodeStatus
	Ready   bool
	Reasons []string
}

// ask asks one node about itself.
func (c *rawClient) ask(ctx context.Context, endpoint string) (nodeAnswer, error) {
	var a nodeAnswer
	if err := c.getJSON(ctx, endpoint+"/v1/status", &a.nodeStatus, http.StatusOK); err != nil {
		return a, err
	}
	var health struct {
		Ready   bool     `json:"ready"`
		Reasons []string `json:"reasons"`
	}
	err := c.getJSON(ctx, endpoint+"/readyz", &health, http.StatusOK, http.StatusServiceUnavailable)
	a.Ready, a.Reasons = health.Ready, health.Reasons
	return a, err
}

// getJSON gets a document that comes with one of the statuses.
func (c *rawClient) getJSON(ctx context.Context, target string, into any, statuses ...int) error {
	status, answer, err := c.do(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	for _, s := range statuses {
		if s == status {
			if err := json.Unmarshal(answer, into); err != nil {
				return fmt.Errorf("an answer that no node gives: %w", err)
			}
			return nil
		}
	}
	var p problem
	if json.Unmarshal(answer, &p) == nil && p.Code != "" {
		return fmt.Errorf("%s: %s", p.Code, p.Detail)
	}
	return fmt.Errorf("an answer that no node gives: status %d", status)
}

// The pauses between two rounds over all endpoints.
const (
	firstPause = 20 * time.Millisecond
	mostPause  = 500 * time.Millisecond
)

// post sends a document that may write to one node after the other, until one
// takes it or the time is over. It sends it again only where it was certainly
// not applied. The error is a *client.Error.
func (c *rawClient) post(ctx context.Context, endpoints []string, path string, query url.Values, body []byte, timeout time.Duration) ([]byte, error) {
	return c.send(ctx, endpoints, rawRequest{method: http.MethodPost, path: path, query: query, body: body}, timeout)
}

// rawRequest is a request that may write.
type rawRequest struct {
	method, path string
	query        url.Values
	body         []byte
	// repeatable is set where to send it twice does what sending it once does.
	repeatable bool
}

// send is post for any request.
func (c *rawClient) send(ctx context.Context, endpoints []string, r rawRequest, timeout time.Duration) ([]byte, error) {
	end := time.Now().Add(timeout)
	// A node that is told how long it may take answers in that time, and says
	// what became of the request; hanging up on it first would not.
	ctx, cancel := context.WithDeadline(ctx, end.Add(time.Second))
	defer cancel()
	last := &client.Error{Code: "unavailable", Detail: "no node answers", Outcome: client.NotApplied, Retryable: true}
	maybe := false // an attempt may have been applied
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		for _, endpoint := range endpoints {
			left := time.Until(end)
			if left < time.Millisecond || ctx.Err() != nil {
				return nil, last
			}
			q := url.Values{"timeout": {min(left, maxServerTimeout).Truncate(time.Millisecond).String()}}
			for name, values := range r.query {
				q[name] = values
			}
			answer, err := c.sendOnce(ctx, endpoint, r.method, r.path+"?"+q.Encode(), r.body)
			if err == nil {
				return answer, nil
			}
			last = err
			again := err.Retryable && (err.Outcome == client.NotApplied || r.repeatable)
			if maybe = maybe || err.Outcome == client.Unknown; maybe {
				last.Outcome = client.Unknown
			}
			if !again {
				return nil, last
			}
		}
		select {
		case <-time.After(min(pause, time.Until(end))):
		case <-ctx.Done():
			return nil, last
		}
	}
}

// maxServerTimeout is the longest that a node takes as ?timeout=.
const maxServerTimeout = 60 * time.Second

func (c *rawClient) sendOnce(ctx context.Context, endpoint, method, pathAndQuery string, body []byte) ([]byte, *client.Error) {
	status, answer, err := c.do(ctx, method, strings.TrimRight(endpoint, "/")+pathAndQuery, body)
	if err != nil {
		e := &client.Error{Code: "unavailable", Detail: err.Error(), Node: endpoint, Outcome: client.Unknown, Retryable: true}
		// Each attempt has a connection of its own: where there was none, nothing
		// was sent.
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			e.Outcome = client.NotApplied
		}
		return nil, e
	}
	if status == http.StatusOK || status == http.StatusCreated {
		return answer, nil
	}
	var p problem
	if json.Unmarshal(answer, &p) != nil || p.Code == "" {
		return nil, &client.Error{Code: "bad_response", Status: status, Node: endpoint,
			Detail: fmt.Sprintf("an answer that no node gives: status %d", status), Outcome: client.Unknown}
	}
	e := &client.Error{Code: p.Code, Status: status, Detail: p.Detail, Node: endpoint, Retryable: p.Retryable}
	if p.Outcome == "not_applied" {
		e.Outcome = client.NotApplied
	}
	if e.Detail == "" {
		if code, ok := trivetpb.CodeByName(p.Code); ok {
			e.Detail = code.Info().Title
		}
	}
	return nil, e
}
