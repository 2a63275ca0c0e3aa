package workload

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// bank moves money between accounts, by additions, by additions that fail half
// way, and by writes on condition, and reads all accounts at once, in every way that there is: each is
// one state, however old.
type bank struct {
	run      *Run
	accounts []string
	ready    chan struct{} // closed once the accounts are there
}

const bankWorkers, bankAccounts, bankStart = 4, 6, 100

// bankStaleness is that of bounded reads.
const bankStaleness = 100 * time.Millisecond

func newBank(run *Run) Workload {
	b := &bank{run: run, ready: make(chan struct{})}
	for i := range bankAccounts {
		b.accounts = append(b.accounts, strconv.Itoa(i))
	}
	return b
}

func (b *bank) Workers() int { return bankWorkers }

func (b *bank) key(account string) string { return b.run.Prefix + "bank/" + account }

// open makes the accounts, once, whatever happens to the first tries.
func (b *bank) open(ctx context.Context, w *Worker) {
	t := api.Txn{If: []api.Compare{{"key": b.key("0"), "target": "version", "op": "==", "number": 0}}}
	for _, a := range b.accounts {
		t.Then = append(t.Then, api.Op{"op": "put", "key": b.key(a), "value": strconv.Itoa(bankStart)})
	}
	t.Then = append(t.Then, api.Op{"op": "put", "key": b.run.Prefix + "bank-note", "value": "no number"})
	if w.insist(ctx, func(n api.Node) api.Answer { _, a := w.Txn(ctx, n, t, false, nil); return a }) {
		// A bounded read may be of before.
		w.sleep(ctx, 2*bankStaleness)
		close(b.ready)
	}
}

func (b *bank) Work(ctx context.Context, w *Worker) {
	select {
	case <-b.ready:
	default:
		if w.Number == 0 {
			b.open(ctx, w)
			return
		}
		select {
		case <-b.ready:
		case <-w.Stopping:
			return
		}
	}
	n := w.node()
	switch w.Rand.IntN(7) {
	case 0, 1:
		b.move(ctx, w, n)
	case 2:
		b.moveIfUnchanged(ctx, w, n)
	case 3:
		b.read(ctx, w, n, "read", nil)
	case 4:
		b.readTxn(ctx, w, n)
	case 5:
		b.moveInVain(ctx, w, n)
	case 6:
		// A node's past is a state too, and so is one that it is asked for. One
		// that knows nothing yet has no accounts: bounded is never so stale.
		if w.Rand.IntN(2) == 0 {
			b.read(ctx, w, n, "read-bounded", url.Values{"consistency": {"bounded"}, "max_staleness": {bankStaleness.String()}})
		} else {
			b.readOld(ctx, w, n)
		}
	}
}

func (b *bank) pick(w *Worker) (from, to string, amount int64) {
	i := w.Rand.IntN(bankAccounts)
	j := (i + 1 + w.Rand.IntN(bankAccounts-1)) % bankAccounts
	return b.accounts[i], b.accounts[j], 1 + w.Rand.Int64N(5)
}

func (b *bank) move(ctx context.Context, w *Worker, n api.Node) {
	from, to, amount := b.pick(w)
	p := w.begin("transfer", n, check.Transfer{From: from, To: to, Amount: amount})
	_, a := w.Txn(ctx, n, api.Txn{Then: []api.Op{
		{"op": "add", "key": b.key(from), "delta": -amount},
		{"op": "add", "key": b.key(to), "delta": amount},
	}}, false, nil)
	w.end(p, a, nil)
}

// moveInVain is a transfer whose last operation cannot be done, so that none of
// it may be.
func (b *bank) moveInVain(ctx context.Context, w *Worker, n api.Node) {
	from, to, amount := b.pick(w)
	p := w.begin("transfer", n, check.Transfer{From: from, To: to, Amount: amount})
	_, a := w.Txn(ctx, n, api.Txn{Then: []api.Op{
		{"op": "add", "key": b.key(from), "delta": -amount},
		{"op": "add", "key": b.run.Prefix + "bank-note", "delta": amount},
	}}, false, nil)
	w.end(p, a, nil)
}

func (b *bank) moveIfUnchanged(ctx context.Context, w *Worker, n api.Node) {
	from, to, amount := b.pick(w)
	p := w.begin("transfer", n, check.Transfer{From: from, To: to, Amount: amount})
	read, a := w.Txn(ctx, n, api.Txn{Then: []api.Op{{"op": "get", "key": b.key(from)}, {"op": "get", "key": b.key(to)}}}, true, nil)
	if a.Type == history.OK {
		t := api.Txn{}
		for i, change := range []int64{-amount, amount} {
			item := read.Results[i].Item
			key := b.key([]string{from, to}[i])
			t.If = append(t.If, api.Compare{"key": key, "target": "mod_revision", "op": "==", "number": item.ModRevision})
			t.Then = append(t.Then, api.Op{"op": "put", "key": key, "value": strconv.FormatInt(decimal(item.Value)+change, 10)})
		}
		var result api.TxnResult
		result, a = w.Txn(ctx, n, t, false, nil)
		if a.Type == history.OK && !result.Succeeded {
			a.Type, a.Why = history.Fail, "somebody else was faster"
		}
	}
	w.end(p, a, nil)
}

func (b *bank) balances(items []api.Item) check.Balances {
	out := check.Balances{}
	for _, item := range items {
		out[item.Key[len(b.key("")):]] = decimal(item.Value)
	}
	return out
}

func (b *bank) read(ctx context.Context, w *Worker, n api.Node, f string, query url.Values) api.Answer {
	p := w.begin(f, n, nil)
	items, a := w.Range(ctx, n, b.key(""), query)
	w.end(p, a, b.balances(items))
	return a
}

func (b *bank) readTxn(ctx context.Context, w *Worker, n api.Node) {
	var t api.Txn
	for _, a := range b.accounts {
		t.Then = append(t.Then, api.Op{"op": "get", "key": b.key(a)})
	}
	p := w.begin("read-txn", n, nil)
	result, a := w.Txn(ctx, n, t, true, nil)
	out := check.Balances{}
	for i, account := range b.accounts {
		if a.Type == history.OK && result.Results[i].Status == 200 {
			out[account] = decimal(result.Results[i].Value)
		}
	}
	w.end(p, a, out)
}

// readOld reads the accounts as they were at the revision of one of them.
func (b *bank) readOld(ctx context.Context, w *Worker, n api.Node) {
	p := w.begin("read-old", n, nil)
	item, _, a := w.Get(ctx, n, b.key(b.accounts[w.Rand.IntN(bankAccounts)]), nil)
	var items []api.Item
	if a.Type == history.OK {
		items, a = w.Range(ctx, w.node(), b.key(""), url.Values{"revision": {fmt.Sprint(item.ModRevision)}})
	}
	w.end(p, a, b.balances(items))
}

func (b *bank) Final(ctx context.Context, w *Worker) {
	select {
	case <-b.ready:
	default:
		return
	}
	w.everyNode(ctx, func(n api.Node) api.Answer { return b.read(ctx, w, n, "read", nil) })
}

func (b *bank) Check(calls []history.Call, _ Limits) []*check.Result {
	return []*check.Result{check.Bank(calls, b.accounts, bankAccounts*bankStart)}
}
