package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"trivet/client"
	"trivet/raftnode"
)

// The pauses between two attempts to be let in.
const (
	firstJoinPause = 100 * time.Millisecond
	mostJoinPause  = 5 * time.Second
)

// joinTimeout is how long one attempt may take.
const joinTimeout = 5 * time.Second

// joinThrough returns what has a member let in through the API of any of the
// nodes. It asks again, with growing pauses of random length, as long as none
// answers or the cluster cannot decide, and says why to told; what the cluster
// refuses is an error.
//
// It asks for a replica in any case: to be let in takes no time, and nobody has
// the whole log at once. The member asks to be a voter itself, when it has.
func joinThrough(ctx context.Context, urls []string, told func(why string)) (func(raftnode.JoinRequest) (raftnode.Joined, error), error) {
	var endpoints []string
	for _, e := range urls {
		u, err := url.Parse(e)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, fmt.Errorf("--join: %q is no URL such as http://127.0.0.1:7071", e)
		}
		endpoints = append(endpoints, strings.TrimRight(e, "/"))
	}
	return func(r raftnode.JoinRequest) (raftnode.Joined, error) {
		body, err := json.Marshal(map[string]string{"id": r.ID, "peer": r.Peer, "role": "replica", "incarnation": r.Incarnation})
		if err != nil {
			return raftnode.Joined{}, err
		}
		raw := newRawClient("")
		last := ""
		for pause := firstJoinPause; ; pause = min(2*pause, mostJoinPause) {
			answer, err := raw.send(ctx, endpoints, rawRequest{
				method: http.MethodPost, path: "/v1/cluster/members", body: body, repeatable: true,
			}, joinTimeout)
			if err == nil {
				return joinedOf(answer)
			}
			var refused *client.Error
			if errors.As(err, &refused) && !refused.Retryable {
				return raftnode.Joined{}, fmt.Errorf("--join: %s: %s", refused.Code, refused.Detail)
			}
			if why := oneLine(err); why != last {
				last = why
				told(why)
			}
			select {
			case <-time.After(pause/2 + rand.N(pause)):
			case <-ctx.Done():
				return raftnode.Joined{}, ctx.Err()
			}
		}
	}, nil
}

// memberAdded is what POST /v1/cluster/members answers.
type memberAdded struct {
	Cluster    string `json:"cluster"`
	ID         string `json:"id"`
	Peer       string `json:"peer"`
	Role       string `json:"role"`
	CatchingUp bool   `json:"catching_up"`
	Changed    bool   `json:"changed"`
	Index      uint64 `json:"index"`
	Members    []struct {
		ID   string `json:"id"`
		Peer string `json:"peer"`
	} `json:"members"`
}

func joinedOf(answer []byte) (raftnode.Joined, error) {
	var a memberAdded
	if err := json.Unmarshal(answer, &a); err != nil || a.Cluster == "" {
		return raftnode.Joined{}, errors.New("--join: bad_response: an answer that no node gives")
	}
	joined := raftnode.Joined{Cluster: a.Cluster, Index: a.Index}
	for _, m := range a.Members {
		joined.Members = append(joined.Members, raftnode.Peer{ID: m.ID, Addr: m.Peer})
	}
	return joined, nil
}
