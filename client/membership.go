package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
)

// What changes the membership says how things shall be: a change that is so
// already is a success, so that these calls are tried again whatever became of
// the attempt before. ErrMemberConflict: the membership does not allow it.

// AddedMember is what AddMember found.
type AddedMember struct {
	// Role is voter or replica.
	Role string
	// CatchingUp: it is to vote, and does not yet. It asks for the rest by itself,
	// where its node was started to be a voter.
	CatchingUp bool
	// Changed is unset where it was so before.
	Changed bool
}

// AddMember lets a member in whose peer port is at peer (HOST:PORT); role is
// "voter" or "replica". A voter is added as a replica and promoted once it has
// caught up, in the time that the call has. A node that is started to join asks
// for this by itself.
func (c *Client) AddMember(ctx context.Context, id, peer, role string) (AddedMember, error) {
	var doc struct {
		Role       string `json:"role"`
		CatchingUp bool   `json:"catching_up"`
		Changed    bool   `json:"changed"`
	}
	body, err := json.Marshal(map[string]string{"id": id, "peer": peer, "role": role})
	if err != nil {
		return AddedMember{}, err // text is always encoded
	}
	err = c.changeMembers(ctx, "add member "+strconv.Quote(id), http.MethodPost, membersPath, body, &doc)
	return AddedMember(doc), err
}

// RemoveMember removes a member, the leader too, and reports whether it was one.
// Its node stops by itself.
func (c *Client) RemoveMember(ctx context.Context, id string) (bool, error) {
	return c.changeMember(ctx, "remove member ", http.MethodDelete, id, "")
}

// PromoteMember makes a replica a voter, once it has caught up, and reports
// whether it was none before.
func (c *Client) PromoteMember(ctx context.Context, id string) (bool, error) {
	return c.changeMember(ctx, "promote member ", http.MethodPost, id, "/promote")
}

// DemoteMember makes a voter a replica, and reports whether it was none before.
func (c *Client) DemoteMember(ctx context.Context, id string) (bool, error) {
	return c.changeMember(ctx, "demote member ", http.MethodPost, id, "/demote")
}

// TransferLeadership gives leadership to a voter, "" for the one that is the most
// fit, and returns who leads then; empty where that was not heard yet.
func (c *Client) TransferLeadership(ctx context.Context, to string) (leader string, err error) {
	document := map[string]string{}
	if to != "" {
		document["to"] = to
	}
	body, err := json.Marshal(document)
	if err != nil {
		return "", err // text is always encoded
	}
	var doc struct {
		Leader string `json:"leader"`
	}
	err = c.changeMembers(ctx, "transfer leadership", http.MethodPost, transferPath, body, &doc)
	return doc.Leader, err
}

func (c *Client) changeMember(ctx context.Context, what, method, id, behind string) (bool, error) {
	var doc struct {
		Changed bool `json:"changed"`
	}
	err := c.changeMembers(ctx, what+strconv.Quote(id), method, membersPath+"/"+url.PathEscape(id)+behind, nil, &doc)
	return doc.Changed, err
}

func (c *Client) changeMembers(ctx context.Context, op, method, path string, body []byte, into any) error {
	r := &request{
		op: op, method: method, path: path, write: true, harmless: true, patience: maxServerTimeout,
		decode: func(a *answer) error { return decodeJSON(a, into) },
	}
	if body != nil {
		r.contentType, r.body = "application/json", body
	}
	return c.do(ctx, r)
}
