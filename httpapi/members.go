package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// Membership changes who the members are. Each change may be asked for again:
// what is so already is a success.
type Membership interface {
	AddMember(ctx context.Context, m raftnode.NewMember) (raftnode.MemberChange, error)
	RemoveMember(ctx context.Context, id string) (raftnode.MemberChange, error)
	PromoteMember(ctx context.Context, id string) (raftnode.MemberChange, error)
	DemoteMember(ctx context.Context, id string) (raftnode.MemberChange, error)
	// Transfer gives leadership to a voter, "" for any, and returns who leads then.
	Transfer(ctx context.Context, to string) (leader string, err error)
}

// membersPrefix comes before a member's id in a path.
const membersPrefix = "/v1/cluster/members/"

// The fields of the documents, by their place.
const (
	memberID = iota
	memberPeer
	memberRole
	memberIncarnation
	memberTo
)

var memberFields = []string{memberID: "id", memberPeer: "peer", memberRole: "role", memberIncarnation: "incarnation", memberTo: "to"}

// memberDocument is what was read of such a document.
type memberDocument struct {
	raftnode.NewMember
	to string
}

// readMember reads the body of a call that takes the given fields, of which
// needed must be there. No body at all is an empty document. Ids and addresses
// are checked by the node.
func (c *call) readMember(known, needed fieldSet) (v memberDocument, p *trivetpb.Problem) {
	if p = c.bare(); p != nil {
		return v, p
	}
	if _, p = documentType(c.r.Header, jsonType); p != nil {
		return v, p
	}
	if p = noPrecondition(c.r.Header); p != nil {
		return v, p
	}
	body, p := c.readBody(smallDocumentBytes, "the document")
	if p != nil {
		return v, p
	}
	if len(body) == 0 {
		body = []byte("{}")
	}
	return decodeMember(body, known, needed)
}

func decodeMember(data []byte, known, needed fieldSet) (v memberDocument, _ *trivetpb.Problem) {
	d := &decoder{data: data}
	seen, err := d.object(memberFields, func(place int) (err *jsonError) {
		if !known.has(place) {
			return d.fail("this call has no such field")
		}
		switch place {
		case memberID:
			v.ID, err = d.text()
		case memberPeer:
			v.Peer, err = d.text()
		case memberIncarnation:
			v.Incarnation, err = d.text()
		case memberTo:
			v.to, err = d.text()
		case memberRole:
			var role string
			if role, err = d.text(); err != nil {
				return err
			}
			switch role {
			case "voter":
			case "replica":
				v.Replica = true
			default:
				return d.fail(`must be "voter" or "replica"`)
			}
		}
		return err
	})
	if err == nil {
		err = d.end()
	}
	switch missing := needed &^ seen; {
	case err != nil:
		return memberDocument{}, err.problem()
	case missing != 0:
		return memberDocument{}, badRequest("field %s is missing", missing.first(memberFields))
	}
	return v, nil
}

// addMember serves POST /v1/cluster/members.
func (s *Server) addMember(c *call) *trivetpb.Problem {
	v, p := c.readMember(fields(memberID, memberPeer, memberRole, memberIncarnation), fields(memberID, memberPeer))
	if p != nil {
		return p
	}
	change, err := s.node.AddMember(c.begin(), v.NewMember)
	if err != nil {
		return s.problemOf(err, true)
	}
	status := http.StatusOK
	if change.Changed {
		status = http.StatusCreated
	}
	role := "replica"
	if !v.Replica && !change.CatchingUp {
		role = "voter"
	}
	b := appendText([]byte{'{'}, "cluster", s.node.ClusterID())
	b = appendText(append(b, ','), "id", v.ID)
	b = appendText(append(b, ','), "peer", v.Peer)
	b = appendText(append(b, ','), "role", role)
	b = appendBool(b, `,"catching_up":`, change.CatchingUp)
	b = appendChange(b, change)
	b = append(b, `,"members":[`...)
	for i, m := range change.Members {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, '{'), "id", m.ID)
		b = appendText(append(b, ','), "peer", m.Peer)
		role := "replica"
		if m.Voter {
			role = "voter"
		}
		b = append(appendText(append(b, ','), "role", role), '}')
	}
	c.answer(status, jsonType, append(b, ']', '}', '\n'))
	return nil
}

func appendBool(b []byte, name string, v bool) []byte {
	return strconv.AppendBool(append(b, name...), v)
}

// appendChange appends what all changes answer.
func appendChange(b []byte, change raftnode.MemberChange) []byte {
	b = appendBool(b, `,"changed":`, change.Changed)
	return appendNumber(b, `,"index":`, change.Index)
}

// removeMember serves DELETE /v1/cluster/members/{id}.
func (s *Server) removeMember(c *call) *trivetpb.Problem {
	return c.changeMember("", s.node.RemoveMember)
}

// promoteMember serves POST /v1/cluster/members/{id}/promote.
func (s *Server) promoteMember(c *call) *trivetpb.Problem {
	return c.changeMember("/promote", s.node.PromoteMember)
}

// demoteMember serves POST /v1/cluster/members/{id}/demote.
func (s *Server) demoteMember(c *call) *trivetpb.Problem {
	return c.changeMember("/demote", s.node.DemoteMember)
}

// changeMember serves a change of the member in the path, between the prefix and
// what comes behind its id.
func (c *call) changeMember(behind string, change func(context.Context, string) (raftnode.MemberChange, error)) *trivetpb.Problem {
	if p := c.bare(); p != nil {
		return p
	}
	if p := c.noBody(); p != nil {
		return p
	}
	id := strings.TrimSuffix(c.r.URL.Path[len(membersPrefix):], behind)
	done, err := change(c.begin(), id)
	if err != nil {
		return c.srv.problemOf(err, true)
	}
	b := appendText([]byte{'{'}, "id", id)
	b = appendChange(b, done)
	c.answer(http.StatusOK, jsonType, append(b, '}', '\n'))
	return nil
}

// transfer serves POST /v1/cluster/transfer.
func (s *Server) transfer(c *call) *trivetpb.Problem {
	v, p := c.readMember(fields(memberTo), 0)
	if p != nil {
		return p
	}
	leader, err := s.node.Transfer(c.begin(), v.to)
	if err != nil {
		return s.problemOf(err, true)
	}
	b := appendText([]byte{'{'}, "leader", leader)
	c.answer(http.StatusOK, jsonType, append(b, '}', '\n'))
	return nil
}
