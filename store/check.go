package store

import (
	"slices"

	"trivet/trivetpb"
)

// Limits that hold everywhere. Those that Apply keeps are part of the state
// machine and must never change.
const (
	// MaxKeyBytes is the longest key; the shortest has one byte. The bounds of
	// a range may have one byte more, for the key right after the longest.
	MaxKeyBytes = 4096
	// MaxResultBytes bounds the answer to one command or read: keys and values
	// of all items that it returns, and 64 bytes for each.
	MaxResultBytes = 8 << 20
	// DefaultRangeItems is a range's limit where none is given, MaxRangeItems
	// the greatest that may be.
	DefaultRangeItems = 1000
	MaxRangeItems     = 10_000
	// MaxDeleteKeys is the most keys that one command may delete by ranges, all
	// of a txn's together: a command is applied in one go, half a microsecond a
	// key or more, and nothing else is meanwhile.
	MaxDeleteKeys = 100_000
	// DefaultMaxValueBytes and DefaultMaxTxnOps are what Limits' zero values
	// mean; HardMaxValueBytes and HardMaxTxnOps what no setting can exceed,
	// and Apply keeps.
	DefaultMaxValueBytes = 1 << 20
	DefaultMaxTxnOps     = 512
	HardMaxValueBytes    = 4 << 20
	HardMaxTxnOps        = 4096
)

// Limits are a server's own, within the hard ones. The zero value means the
// defaults.
type Limits struct {
	// MaxValueBytes is the longest value of a put.
	MaxValueBytes int
	// MaxTxnOps is the most compares, and the most ops of either branch, that
	// a txn may have.
	MaxTxnOps int
}

var hardLimits = Limits{MaxValueBytes: HardMaxValueBytes, MaxTxnOps: HardMaxTxnOps}

func (l Limits) withDefaults() Limits {
	if l.MaxValueBytes <= 0 {
		l.MaxValueBytes = DefaultMaxValueBytes
	}
	if l.MaxTxnOps <= 0 {
		l.MaxTxnOps = DefaultMaxTxnOps
	}
	l.MaxValueBytes = min(l.MaxValueBytes, HardMaxValueBytes)
	l.MaxTxnOps = min(l.MaxTxnOps, HardMaxTxnOps)
	return l
}

// Check refuses what can be refused without looking at the state, before it is
// proposed; nil means that the op is fine. An op that it lets through never
// makes Apply return ErrUnknownCommand.
func Check(op *trivetpb.Op, l Limits) *trivetpb.Problem {
	if err := knownOp(op); err != nil {
		return problemf(trivetpb.Code_BAD_REQUEST, "%v", err)
	}
	return check(op, l.withDefaults(), false)
}

// check is Check of an op that knownOp accepted.
func check(op *trivetpb.Op, l Limits, inTxn bool) *trivetpb.Problem {
	switch op := op.Op.(type) {
	case *trivetpb.Op_Put:
		if n := len(op.Put.Value); n > l.MaxValueBytes {
			p := problemf(trivetpb.Code_TOO_LARGE, "the value has %d bytes, and may have %d", n, l.MaxValueBytes)
			p.Limit = uint64(l.MaxValueBytes)
			return p
		}
		if op.Put.TtlMs != 0 {
			if op.Put.Lease != 0 {
				return problemf(trivetpb.Code_BAD_REQUEST, "either a lease or a ttl, not both")
			}
			if p := checkTTL(op.Put.TtlMs); p != nil {
				return p
			}
		}
		return checkKey(op.Put.Key)
	case *trivetpb.Op_Delete:
		if op.Delete.Range == nil {
			return checkKey(op.Delete.Key)
		}
		if op.Delete.Precondition.GetKind() != trivetpb.Precondition_NONE {
			return problemf(trivetpb.Code_BAD_REQUEST, "a precondition goes with a key, not with a range")
		}
		return checkKeyOrRange(op.Delete.Key, op.Delete.Range)
	case *trivetpb.Op_Get:
		return checkKey(op.Get.Key)
	case *trivetpb.Op_Range:
		if op.Range.Range == nil {
			return problemf(trivetpb.Code_BAD_REQUEST, "a range op needs a range")
		}
		if op.Range.Limit > MaxRangeItems {
			return problemf(trivetpb.Code_BAD_REQUEST, "the limit is %d, and may be %d", op.Range.Limit, MaxRangeItems)
		}
		return checkRange(op.Range.Range)
	case *trivetpb.Op_Add:
		return checkKey(op.Add.Key)
	case *trivetpb.Op_Txn:
		if inTxn {
			return problemf(trivetpb.Code_BAD_REQUEST, "a txn cannot hold a txn")
		}
		return checkTxn(op.Txn, l)
	}
	return problemf(trivetpb.Code_BAD_REQUEST, "the op is empty") // not reached: knownOp refuses it
}

func checkKey(key []byte) *trivetpb.Problem {
	switch n := len(key); {
	case n == 0:
		return problemf(trivetpb.Code_BAD_KEY, "the key is empty")
	case n > MaxKeyBytes:
		return problemf(trivetpb.Code_BAD_KEY, "the key has %d bytes, and may have %d", n, MaxKeyBytes)
	}
	return nil
}

// checkRange lets a range through that holds nothing (start ≥ end): it is what
// it says.
func checkRange(r *trivetpb.KeyRange) *trivetpb.Problem {
	if n := max(len(r.Start), len(r.End)); n > MaxKeyBytes+1 {
		return problemf(trivetpb.Code_BAD_KEY, "a bound of the range has %d bytes, and may have %d", n, MaxKeyBytes+1)
	}
	return nil
}

func checkKeyOrRange(key []byte, r *trivetpb.KeyRange) *trivetpb.Problem {
	switch {
	case r == nil:
		return checkKey(key)
	case len(key) != 0:
		return problemf(trivetpb.Code_BAD_REQUEST, "either a key or a range, not both")
	}
	return checkRange(r)
}

func checkTxn(t *trivetpb.TxnOp, l Limits) *trivetpb.Problem {
	if n := max(len(t.If), len(t.Then), len(t.Else)); n > l.MaxTxnOps {
		p := problemf(trivetpb.Code_TOO_LARGE, "the txn has %d compares or ops in one list, and may have %d", n, l.MaxTxnOps)
		p.Limit = uint64(l.MaxTxnOps)
		return p
	}
	for i, c := range t.If {
		if p := checkKeyOrRange(c.Key, c.Range); p != nil {
			return problemf(p.Code, "if[%d]: %s", i, p.Detail)
		}
	}
	for _, succeeded := range [...]bool{true, false} {
		ops := t.Else
		if succeeded {
			ops = t.Then
		}
		for i, op := range ops {
			if p := check(op, l, true); p != nil {
				return inBranch(p, succeeded, i)
			}
		}
		if i := duplicateWrite(ops); i >= 0 {
			return inBranch(problemf(trivetpb.Code_DUPLICATE_KEY, "another op of the branch writes or deletes this key too"), succeeded, i)
		}
	}
	return nil
}

// written is the key that op i of a branch puts or adds to.
type written struct {
	key string
	i   int
}

// duplicateWrite finds a put or add whose key another put or add of the branch
// writes, or a delete covers, before or after it: a key has one version a
// revision. It returns the op's index, -1 for none. Deletes may overlap: what
// one deleted is not there for the next, so no key is written twice.
func duplicateWrite(ops []*trivetpb.Op) int {
	if len(ops) < 2 {
		return -1
	}
	var few [8]written // most txns are that small, and need no allocation for it
	writes := few[:0]
	if len(ops) > len(few) {
		writes = make([]written, 0, len(ops))
	}
	for i, op := range ops {
		switch op := op.Op.(type) {
		case *trivetpb.Op_Put:
			writes = append(writes, written{keyString(op.Put.Key), i})
		case *trivetpb.Op_Add:
			writes = append(writes, written{keyString(op.Add.Key), i})
		}
	}
	if len(writes) == 0 {
		return -1
	}
	slices.SortFunc(writes, func(a, b written) int {
		switch {
		case a.key < b.key:
			return -1
		case a.key > b.key:
			return 1
		}
		return a.i - b.i // the later op is the one to name
	})
	for n := 1; n < len(writes); n++ {
		if writes[n].key == writes[n-1].key {
			return writes[n].i
		}
	}
	// from is the first written key not before key.
	from := func(key string) int {
		n, _ := slices.BinarySearchFunc(writes, key, func(w written, key string) int {
			if w.key < key {
				return -1
			}
			return 1
		})
		return n
	}
	for _, op := range ops {
		d, ok := op.Op.(*trivetpb.Op_Delete)
		if !ok {
			continue
		}
		start := keyString(d.Delete.Key)
		if d.Delete.Range != nil {
			start = keyString(d.Delete.Range.Start)
		}
		n := from(start)
		if n == len(writes) {
			continue
		}
		hit := writes[n].key == start
		if d.Delete.Range != nil {
			end := keyString(d.Delete.Range.End)
			hit = end == "" || writes[n].key < end
		}
		if hit {
			return writes[n].i
		}
	}
	return -1
}
