package check

import (
	"trivet/jepsen-lite/history"
)

// Transfer is an operation of f transfer; Balances what one of f read returned.
type Transfer struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Amount int64  `json:"amount"`
}

// Balances are all accounts, as one read saw them.
type Balances map[string]int64

// Bank checks that every read, however stale, saw all accounts with the total
// that they began with: that transfers are seen whole or not at all.
func Bank(calls []history.Call, accounts []string, total int64) *Result {
	r := NewResult("bank: the total stays")
	reads, transfers := 0, 0
	for _, c := range calls {
		if c.F == "transfer" && c.Type == history.OK {
			transfers++
		}
		if c.F == "transfer" || c.Type != history.OK {
			continue
		}
		reads++
		balances := c.Out.(Balances)
		var sum int64
		for _, b := range balances {
			sum += b
		}
		missing := ""
		for _, a := range accounts {
			if _, there := balances[a]; !there {
				missing = a
			}
		}
		switch {
		case missing != "":
			r.violated("%s at %s on %s saw no account %s: %v", c.F, at(c.Invoked), c.Node, missing, balances)
		case sum != total:
			r.violated("%s at %s on %s saw %d in all, not %d: %v", c.F, at(c.Invoked), c.Node, sum, total, balances)
		}
	}
	r.figure("reads", reads)
	r.figure("transfers", transfers)
	return r
}
