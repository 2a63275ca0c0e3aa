package systems

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"trivet/bench/internal/load"
)

// etcdGo speaks to etcd through its Go client: one for all reads, which it spreads
// over the nodes, and one for all writes, which go to the leader. It does not find
// that by itself; to be told is to its advantage.
type etcdGo struct {
	write, read *clientv3.Client
	options     Options
}

func openEtcdGo(ctx context.Context, c *etcdCluster, o Options) (Client, error) {
	e := &etcdGo{options: o}
	var err error
	if e.read, err = c.client(o.Nodes); err != nil {
		return nil, err
	}
	if e.write = e.read; o.Nodes == nil {
		leader, err := c.Leader(ctx)
		if err == nil {
			e.write, err = c.client([]int{leader})
		}
		if err != nil {
			e.read.Close()
			return nil, err
		}
	}
	return e, nil
}

func (e *etcdGo) Close() error {
	err := e.read.Close()
	if e.write != e.read {
		err = errors.Join(err, e.write.Close())
	}
	return err
}

func (e *etcdGo) Caller(int) (Caller, error) { return etcdGoCaller{e}, nil }

type etcdGoCaller struct{ *etcdGo }

// Close leaves the clients, which are everybody's.
func (e etcdGoCaller) Close() error { return nil }

func (e etcdGoCaller) Put(ctx context.Context, key int, value []byte) error {
	_, err := e.write.Put(ctx, load.Key(key), string(value))
	return err
}

func (e etcdGoCaller) Get(ctx context.Context, key int) error { return e.get(ctx, key, 1) }

func (e etcdGoCaller) StaleGet(ctx context.Context, key int) error {
	return e.get(ctx, key, 1, clientv3.WithSerializable())
}

func (e etcdGoCaller) Scan(ctx context.Context, key, count int) error {
	return e.get(ctx, key, count, clientv3.WithRange(load.Key(key+count)), clientv3.WithLimit(int64(count)))
}

func (e etcdGoCaller) get(ctx context.Context, key, count int, o ...clientv3.OpOption) error {
	r, err := e.read.Get(ctx, load.Key(key), o...)
	if err != nil {
		return err
	}
	if len(r.Kvs) != count {
		return fmt.Errorf("%d items", len(r.Kvs))
	}
	for _, kv := range r.Kvs {
		if len(kv.Value) != e.options.ValueBytes {
			return fmt.Errorf("a value of %d bytes", len(kv.Value))
		}
	}
	return nil
}

// errCompare is of a txn whose compare did not hold.
var errCompare = errors.New("the compare did not hold")

func (e etcdGoCaller) Txn(ctx context.Context, exists, a, b int, value []byte) error {
	r, err := e.write.Txn(ctx).If(clientv3.Compare(clientv3.Version(load.Key(exists)), ">", 0)).
		Then(clientv3.OpPut(load.Key(a), string(value)), clientv3.OpPut(load.Key(b), string(value))).Commit()
	if err == nil && !r.Succeeded {
		err = errCompare
	}
	return err
}

func (e *etcdGo) Watch(ctx context.Context, _ int, ready func(), events func(int)) error {
	for r := range e.read.Watch(ctx, load.Prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
		if err := r.Err(); err != nil && ctx.Err() == nil {
			return err
		}
		if n := len(r.Events); n > 0 {
			events(n)
		}
		if r.Created && ready != nil {
			ready()
			ready = nil
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.New("the watch ended")
}
