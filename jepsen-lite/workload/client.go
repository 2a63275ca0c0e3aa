package workload

import (
	"context"
	"errors"

	"trivet/client"
	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/history"
)

// open opens a client as a user's service has it; it is closed with the worker.
// The error is the context's: the endpoints are good.
func (r *Run) open(ctx context.Context, w *Worker) (*client.Client, error) {
	var endpoints []string
	for _, n := range r.Nodes {
		endpoints = append(endpoints, n.URL)
	}
	c, err := client.Open(ctx, client.Config{Endpoints: endpoints})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(w.ended, func() { c.Close() })
	return c, nil
}

// clientAnswer is what the client's error says of a write.
func clientAnswer(err error) api.Answer {
	switch {
	case err == nil:
		return api.Answer{Type: history.OK}
	case errors.Is(err, client.ErrUnknown):
		return api.Answer{Type: history.Info, Why: err.Error()}
	}
	return api.Answer{Type: history.Fail, Why: err.Error()}
}
