package store

import (
	"strconv"

	"trivet/trivetpb"
)

// add adds to the number that a key holds; a missing key counts from 0. The
// value is kept as decimal text, and the key keeps its lease: unlike a put, an
// add changes the value only.
func (a *applier) add(op *trivetpb.AddOp, result *trivetpb.Result) *trivetpb.Problem {
	key := keyString(op.Key)
	c := a.table.find(key)
	old := c.newest()
	var n int64
	var lease uint64
	if old.live() {
		var ok bool
		if n, ok = parseNumber(old.bytes()); !ok {
			return problemf(trivetpb.Code_NOT_A_NUMBER, "the key's value is not the decimal text of a 64-bit integer")
		}
		lease = old.lease()
	}
	sum := n + op.Delta
	if (op.Delta > 0 && sum < n) || (op.Delta < 0 && sum > n) {
		return problemf(trivetpb.Code_OVERFLOW, "%d%+d is out of the range of a 64-bit integer", n, op.Delta)
	}
	a.write(key, c, strconv.AppendInt(nil, sum, 10), lease)
	answer := a.memory.adds.next(a.left)
	answer.add.Value = sum
	answer.oneof.Add = &answer.add
	result.Result = &answer.oneof
	return nil
}

// parseNumber takes exactly the texts that add writes: those that
// strconv.FormatInt gives. "007", "+7", "-0" and "7\n" are no numbers: adding
// to one would silently lose how it was written, and a text that was meant as a
// counter has none of these forms. (Redis decided the same for INCR.)
func parseNumber(b []byte) (int64, bool) {
	if len(b) > len("-9223372036854775808") {
		return 0, false
	}
	n, err := strconv.ParseInt(keyString(b), 10, 64)
	if err != nil {
		return 0, false
	}
	var text [20]byte
	return n, string(strconv.AppendInt(text[:0], n, 10)) == string(b)
}
