package systems

import (
	"context"
	"fmt"

	"trivet/bench/internal/load"
	"trivet/client"
)

// trivetGo speaks to Trivet through its Go client, one for all callers.
type trivetGo struct {
	client  *client.Client
	options Options
}

func openTrivetGo(ctx context.Context, c *trivetCluster, o Options) (Client, error) {
	cl, err := c.client(ctx, o.Nodes)
	return &trivetGo{client: cl, options: o}, err
}

func (t *trivetGo) Close() error { return t.client.Close() }

func (t *trivetGo) Caller(int) (Caller, error) { return trivetGoCaller{t}, nil }

type trivetGoCaller struct{ *trivetGo }

// Close leaves the client, which is everybody's.
func (t trivetGoCaller) Close() error { return nil }

func (t trivetGoCaller) Put(ctx context.Context, key int, value []byte) error {
	_, err := t.client.Put(ctx, load.Key(key), value)
	return err
}

func (t trivetGoCaller) Get(ctx context.Context, key int) error { return t.get(ctx, key) }

func (t trivetGoCaller) StaleGet(ctx context.Context, key int) error {
	return t.get(ctx, key, client.Stale())
}

func (t trivetGoCaller) get(ctx context.Context, key int, o ...client.GetOption) error {
	item, err := t.client.Get(ctx, load.Key(key), o...)
	if err == nil && len(item.Value) != t.options.ValueBytes {
		err = fmt.Errorf("a value of %d bytes", len(item.Value))
	}
	return err
}

func (t trivetGoCaller) Scan(ctx context.Context, key, count int) error {
	n := 0
	for item, err := range t.client.List(ctx, client.Between(load.Key(key), load.Key(key+count)), client.Limit(count)) {
		if err != nil {
			return err
		}
		if len(item.Value) != t.options.ValueBytes {
			return fmt.Errorf("a value of %d bytes", len(item.Value))
		}
		n++
	}
	if n != count {
		return fmt.Errorf("%d items", n)
	}
	return nil
}

func (t trivetGoCaller) Txn(ctx context.Context, exists, a, b int, value []byte) error {
	r, err := t.client.Txn().If(client.VersionOf(load.Key(exists)).Greater(0)).
		Then(client.OpPut(load.Key(a), value), client.OpPut(load.Key(b), value)).Commit(ctx)
	if err == nil && !r.Succeeded {
		err = errCompare
	}
	return err
}

func (t *trivetGo) Watch(ctx context.Context, _ int, ready func(), events func(int)) error {
	for frame, err := range t.client.Watch(ctx, client.Prefix(load.Prefix)) {
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if n := len(frame.Events); n > 0 {
			events(n)
		} else if ready != nil {
			ready()
			ready = nil
		}
	}
	return nil
}
