package systems

import (
	"context"
	"time"
)

// FirstRead waits until a node answers a linearizable read of key 0, and returns
// when it has: at once where it serves.
func FirstRead(ctx context.Context, c Cluster, way string, node, valueBytes int) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		err := tryRead(ctx, c, way, node, valueBytes)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pollPause):
		}
	}
}

// tryRead reads over a connection of its own. An attempt is short: a node that starts
// may take a request and not answer it.
func tryRead(ctx context.Context, c Cluster, way string, node, valueBytes int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := c.Open(ctx, way, Options{ValueBytes: valueBytes, Nodes: []int{node}})
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := client.Caller(0)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.Get(ctx, 0)
}
