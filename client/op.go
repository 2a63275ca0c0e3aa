package client

import (
	"encoding/json"
	"errors"

	"trivet/trivetpb"
)

// Op is one operation of a Txn: see OpPut, OpDelete, OpDeleteRange, OpAdd, OpGet,
// OpRange and OpCount. The zero Op is refused.
type Op struct {
	kind  opKind
	key   string
	value []byte
	delta int64
	keys  KeyRange
	params
}

type opKind string

const (
	opPut         opKind = "put"
	opDelete      opKind = "delete"
	opDeleteRange opKind = "delete range"
	opAdd         opKind = "add"
	opGet         opKind = "get"
	opRange       opKind = "range"
	opCount       opKind = "count"
)

// OpPut writes a value, which must not be changed before the Txn is committed.
func OpPut(key string, value []byte, opts ...OpPutOption) Op {
	op := Op{kind: opPut, key: key, value: value}
	for _, o := range opts {
		o.toOpPut(&op.params)
	}
	return op
}

// OpDelete deletes a key, which need not be there.
func OpDelete(key string, opts ...OpWriteOption) Op {
	return Op{kind: opDelete, key: key}.with(opts)
}

// OpDeleteRange deletes all keys of a range.
func OpDeleteRange(keys KeyRange, opts ...OpWriteOption) Op {
	return Op{kind: opDeleteRange, keys: keys}.with(opts)
}

// OpAdd adds delta to the number at a key; a missing key counts from 0. Where
// there is no number or no sum the whole Txn fails, with ErrNotANumber or
// ErrOverflow.
func OpAdd(key string, delta int64) Op { return Op{kind: opAdd, key: key, delta: delta} }

// OpGet reads a key, which need not be there. It sees what operations before it
// in the Txn wrote, as OpRange and OpCount do.
func OpGet(key string) Op { return Op{kind: opGet, key: key} }

// OpRange reads the items of a range, 1,000 at most unless Limit says otherwise.
func OpRange(keys KeyRange, opts ...OpRangeOption) Op {
	op := Op{kind: opRange, keys: keys}
	for _, o := range opts {
		o.toOpRange(&op.params)
	}
	return op
}

// OpCount counts the keys of a range.
func OpCount(keys KeyRange) Op { return Op{kind: opCount, keys: keys} }

func (op Op) with(opts []OpWriteOption) Op {
	for _, o := range opts {
		o.toOpWrite(&op.params)
	}
	return op
}

// reads says that the operation changes nothing.
func (op *Op) reads() bool { return op.kind == opGet || op.kind == opRange || op.kind == opCount }

// check refuses what no server takes.
func (op *Op) check(call string) *Error {
	switch op.kind {
	case opPut:
		return firstOf(checkKey(call, op.key), op.checkLease(call))
	case opDelete, opAdd, opGet:
		return checkKey(call, op.key)
	case opDeleteRange:
		return op.keys.check(call, true)
	case opRange, opCount:
		return firstOf(op.keys.check(call, false), op.checkLimit(call))
	}
	return refusal(call, trivetpb.Code_BAD_REQUEST, "the zero Op is no operation")
}

// opJSON is an operation in a request.
type opJSON struct {
	Op        string  `json:"op"`
	Key       *string `json:"key,omitempty"`
	Key64     []byte  `json:"key64,omitempty"`
	Value     *string `json:"value,omitempty"`
	Value64   []byte  `json:"value64,omitempty"`
	Lease     uint64  `json:"lease,omitempty"`
	TTL       string  `json:"ttl,omitempty"`
	Delta     *int64  `json:"delta,omitempty"`
	Prefix    *string `json:"prefix,omitempty"`
	Prefix64  []byte  `json:"prefix64,omitempty"`
	Start     *string `json:"start,omitempty"`
	Start64   []byte  `json:"start64,omitempty"`
	End       *string `json:"end,omitempty"`
	End64     []byte  `json:"end64,omitempty"`
	Limit     int     `json:"limit,omitempty"`
	KeysOnly  bool    `json:"keys_only,omitempty"`
	CountOnly bool    `json:"count_only,omitempty"`
	Prev      bool    `json:"prev,omitempty"`
}

func (op *Op) json() opJSON {
	j := opJSON{Op: string(op.kind), Limit: op.limit, KeysOnly: op.keysOnly, Prev: op.prev}
	switch op.kind {
	case opPut, opDelete, opAdd, opGet:
		j.Key, j.Key64 = bytesJSON(op.key)
	default:
		op.keys.addToJSON(&j)
	}
	switch op.kind {
	case opPut:
		j.Value, j.Value64 = bytesJSON(op.value)
		j.Lease = op.lease
		if op.hasTTL {
			j.TTL = op.ttl.String()
		}
	case opAdd:
		j.Delta = &op.delta
	case opDeleteRange:
		j.Op = "delete"
	case opCount:
		j.Op, j.CountOnly = "range", true
	}
	return j
}

func (r KeyRange) addToJSON(j *opJSON) {
	switch r.kind {
	case rangePrefix:
		j.Prefix, j.Prefix64 = bytesJSON(r.start)
	case rangeBetween, rangeKey:
		j.Start, j.Start64 = bytesJSON(r.start)
		j.End, j.End64 = bytesJSON(r.end)
	case rangeFrom, rangeAll: // of all, start is empty
		j.Start, j.Start64 = bytesJSON(r.start)
	}
}

// OpResult is what an operation of a Txn did or read. The field that its kind of
// operation has is set, the others are nil.
type OpResult struct {
	Put    *PutResult    // OpPut
	Delete *DeleteResult // OpDelete, OpDeleteRange
	Add    *AddResult    // OpAdd
	Get    *GetResult    // OpGet
	Range  *RangeResult  // OpRange, OpCount
}

// AddResult is what OpAdd did.
type AddResult struct {
	// Value is the sum.
	Value int64
}

// GetResult is what OpGet read.
type GetResult struct {
	// Found says whether the key is there; Item is zero where it is not.
	Found bool
	Item  Item
}

// RangeResult is what OpRange or OpCount read.
type RangeResult struct {
	// Items is empty for OpCount.
	Items []Item
	// Count is the number of keys in the whole range, past a limit too.
	Count uint64
	// More says that the limit left keys out.
	More bool
}

// result decodes what the operation came to, in a Txn at the revision.
func (op *Op) result(data json.RawMessage, revision uint64) (res OpResult, err error) {
	var status struct {
		Status  int             `json:"status"`
		Problem json.RawMessage `json:"problem"`
	}
	if err := json.Unmarshal(data, &status); err != nil {
		return res, err
	}
	if op.kind == opGet && status.Status == 404 && status.Problem != nil {
		return OpResult{Get: &GetResult{}}, nil
	}
	if status.Problem != nil || status.Status < 200 || status.Status > 299 {
		// A txn that was done has no operation that failed.
		return res, errors.New("an operation of a txn that was done has failed")
	}
	switch op.kind {
	case opPut:
		var j putJSON
		if err = json.Unmarshal(data, &j); err == nil {
			res.Put = &PutResult{}
			*res.Put, err = j.result(revision)
		}
	case opDelete, opDeleteRange:
		var j deleteJSON
		if err = json.Unmarshal(data, &j); err == nil {
			res.Delete = &DeleteResult{}
			*res.Delete, err = j.result(revision, op.kind == opDeleteRange)
		}
	case opAdd:
		var j addJSON
		if err = json.Unmarshal(data, &j); err == nil && j.Value == nil {
			err = missing("value")
		}
		if err == nil {
			res.Add = &AddResult{Value: *j.Value}
		}
	case opGet:
		var j itemJSON
		if err = json.Unmarshal(data, &j); err == nil {
			res.Get = &GetResult{Found: true}
			res.Get.Item, err = j.item(false)
		}
	case opRange, opCount:
		var j rangeJSON
		if err = json.Unmarshal(data, &j); err == nil && j.Count == nil {
			err = missing("count")
		}
		if err == nil {
			res.Range = &RangeResult{Count: *j.Count, More: j.More}
			res.Range.Items, err = itemsOf(j.Items, op.keysOnly)
		}
	}
	return res, err
}
