package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"trivet/jepsen-lite/history"
)

// Register is an operation on a register, of f read, write or cas. 0 is the
// value of one that was never written; every write of a key writes another value.
type Register struct {
	Key   string `json:"key"`
	Value int64  `json:"value"` // written, or returned by a read
	Old   int64  `json:"old,omitempty"`
	// Swapped is what a cas that is OK says: a cas that met another value is OK
	// too, and shows something.
	Swapped  *bool  `json:"swapped,omitempty"`
	Revision uint64 `json:"revision,omitempty"` // of the answer
}

// MarshalJSON writes the value 0 as null, which is what Jepsen's histories have where a
// read begins and where it finds nothing.
func (r Register) MarshalJSON() ([]byte, error) {
	type plain Register
	var value *int64
	if r.Value != 0 {
		value = &r.Value
	}
	return json.Marshal(struct {
		plain
		Value *int64 `json:"value"`
	}{plain(r), value})
}

type registerOutput struct {
	value   int64
	swapped bool
	known   bool // false of an Info
}

type registerInput struct {
	f string
	Register
}

// registerModel is a register with the value 0 at the start.
var registerModel = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		value, in, out := state.(int64), input.(registerInput), output.(registerOutput)
		switch in.f {
		case "read":
			return out.value == value, value
		case "write":
			return true, in.Value
		default: // cas
			if !out.known {
				// It did whatever it did.
				if value == in.Old {
					return true, in.Value
				}
				return true, value
			}
			if out.swapped {
				return value == in.Old, in.Value
			}
			return value != in.Old, value
		}
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(registerInput), output.(registerOutput)
		unknown := ""
		if !out.known {
			unknown = " ?"
		}
		switch in.f {
		case "read":
			return fmt.Sprintf("read → %d", out.value)
		case "write":
			return fmt.Sprintf("write %d%s", in.Value, unknown)
		default:
			return fmt.Sprintf("cas %d→%d: %v%s", in.Old, in.Value, out.swapped, unknown)
		}
	},
	DescribeState: func(state any) string { return fmt.Sprint(state) },
}

// Registers checks that each key is a linearizable register, with porcupine, for
// at most limit in all.
func Registers(calls []history.Call, limit time.Duration) *Result {
	r := NewResult("register: linearizable by key")
	byKey := map[string][]porcupine.Operation{}
	for _, c := range calls {
		in := c.In.(Register)
		op := porcupine.Operation{ClientId: c.Process, Input: registerInput{c.F, in}, Call: c.Invoked, Return: c.Returned}
		switch {
		case c.Type == history.Fail, c.Type == history.Info && c.F == "read":
			continue // as if it had never been asked
		case c.Type == history.Info:
			op.Return, op.Output = math.MaxInt64, registerOutput{}
		default:
			out := c.Out.(Register)
			op.Output = registerOutput{value: out.Value, swapped: out.Swapped != nil && *out.Swapped, known: true}
		}
		byKey[in.Key] = append(byKey[in.Key], op)
	}
	keys := make([]string, 0, len(byKey))
	ops, longest := 0, 0
	for key, h := range byKey {
		keys = append(keys, key)
		ops += len(h)
		longest = max(longest, len(h))
	}
	slices.Sort(keys)
	begin := time.Now()
	unknown := 0
	for _, key := range keys {
		left := limit - time.Since(begin)
		if left <= 0 {
			unknown++
			continue
		}
		verdict, info := porcupine.CheckOperationsVerbose(registerModel, byKey[key], left)
		switch verdict {
		case porcupine.Unknown:
			unknown++
		case porcupine.Illegal:
			r.violated("the %d operations on key %s are in no order in which a register does that", len(byKey[key]), key)
			var page bytes.Buffer
			if err := porcupine.Visualize(registerModel, info, &page); err == nil && len(r.Files) < maxFindings {
				if r.Files == nil {
					r.Files = map[string][]byte{}
				}
				r.Files["register-"+fileName(key)+".html"] = page.Bytes()
			}
		}
	}
	if unknown > 0 {
		r.inconclusive("%d of %d keys were not decided in %v", unknown, len(keys), limit)
	}
	r.figure("keys", len(keys))
	r.figure("operations", ops)
	r.figure("most of one key", longest)
	r.figure("time", time.Since(begin).Round(time.Millisecond))
	return r
}

func fileName(key string) string {
	b := []byte(key)
	for i, c := range b {
		if c == '/' {
			b[i] = '-'
		}
	}
	return string(b)
}
