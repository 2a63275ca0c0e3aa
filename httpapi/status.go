package httpapi

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"trivet/trivetpb"
)

// status serves GET /v1/status: this node alone, whatever state it is in.
func (s *Server) status(c *call) *trivetpb.Problem {
	st, data := s.node.Status(), s.node.Store().Stats()
	c.revision = data.Revision
	b := []byte("{")
	for _, f := range []struct{ name, text string }{
		{"node", st.Node}, {"cluster", st.Cluster}, {"role", st.Role}, {"leader", st.Leader}, {"version", st.Version},
		{"uptime", st.Uptime.Round(time.Millisecond).String()},
		// 64 bits do not fit a JSON number in every language.
		{"state_hash", fmt.Sprintf("%016x", st.StateHash)},
	} {
		b = appendText(b, f.name, f.text)
		b = append(b, ',')
	}
	if st.Failed != "" {
		b = appendText(b, "failed", st.Failed)
		b = append(b, ',')
	}
	b = appendNumber(b, `"term":`, st.Term)
	b = appendNumber(b, `,"commit_index":`, st.CommitIndex)
	b = appendNumber(b, `,"applied_index":`, st.AppliedIndex)
	b = appendNumber(b, `,"revision":`, data.Revision)
	b = appendNumber(b, `,"compact_revision":`, data.CompactRevision)
	b = appendNumber(b, `,"keys":`, data.Keys)
	b = appendNumber(b, `,"bytes":`, data.Bytes)
	b = appendNumber(b, `,"watchers":`, uint64(s.node.Store().Watchers()))
	c.answer(http.StatusOK, jsonType, append(b, '}', '\n'))
	return nil
}

// cluster serves GET /v1/cluster: all members, as the leader knows them.
func (s *Server) cluster(c *call) *trivetpb.Problem {
	cs, err := s.node.Cluster(c.begin())
	if err != nil {
		return s.problemOf(err, false)
	}
	b := append([]byte{}, '{')
	b = appendText(b, "cluster", cs.Cluster)
	b = appendText(append(b, ','), "leader", cs.Leader)
	b = appendNumber(b, `,"term":`, cs.Term)
	b = append(b, `,"members":[`...)
	for i, m := range cs.Members {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, '{'), "id", m.ID)
		b = appendText(append(b, ','), "api", m.API)
		b = appendText(append(b, ','), "peer", m.Peer)
		b = appendText(append(b, ','), "role", m.Role)
		b = append(b, `,"leader":`...)
		b = strconv.AppendBool(b, m.Leader)
		b = append(b, `,"healthy":`...)
		b = strconv.AppendBool(b, m.Healthy)
		b = appendNumber(b, `,"applied_index":`, m.AppliedIndex)
		b = appendNumber(b, `,"lag":`, m.Lag)
		b = append(b, `,"last_contact_ms":`...)
		if m.LastContact < 0 {
			b = append(b, "null"...) // never
		} else {
			b = strconv.AppendInt(b, m.LastContact.Milliseconds(), 10)
		}
		b = appendText(append(b, ','), "version", m.Version)
		b = append(b, '}')
	}
	c.answer(http.StatusOK, jsonType, append(b, ']', '}', '\n'))
	return nil
}

// livez serves GET /livez: whoever can answer is alive.
func (s *Server) livez(c *call) *trivetpb.Problem {
	c.answer(http.StatusOK, jsonType, []byte("{\"live\":true}\n"))
	return nil
}

// readyz serves GET /readyz: 200 where the node can serve, else 503 with the
// reasons. It is for load balancers, so it is no problem document: the reasons
// are the answer.
func (s *Server) readyz(c *call) *trivetpb.Problem {
	maxLag, _, p := c.query.uint("max_lag", 1, maxNumber)
	if p != nil {
		return p
	}
	reasons := s.node.Ready(maxLag)
	if s.leaving.Load() || s.draining.Load() {
		reasons = append(reasons[:len(reasons):len(reasons)], "draining")
	}
	status := http.StatusOK
	if len(reasons) > 0 {
		status = http.StatusServiceUnavailable
		c.set("Retry-After", retryAfter)
	}
	b := append([]byte{}, `{"ready":`...)
	b = strconv.AppendBool(b, len(reasons) == 0)
	b = append(b, `,"reasons":[`...)
	for i, reason := range reasons {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, reason)
	}
	c.answer(status, jsonType, append(b, ']', '}', '\n'))
	return nil
}

// appendText appends `"name":"text"`.
func appendText(b []byte, name, text string) []byte {
	b = appendString(b, name)
	b = append(b, ':')
	return appendString(b, text)
}
