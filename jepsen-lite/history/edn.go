package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// EDN writes a record of JSON lines as EDN, a map a line, in the form that
// Jepsen's own histories have: the keys, the types and the fs are keywords, and
// so is the nemesis. In a value, the strings "append" and "r" that head a
// micro-operation are keywords, as Elle reads them; all else stays what it is.
func EDN(w io.Writer, jsonl io.Reader) error {
	out := bufio.NewWriter(w)
	dec := json.NewDecoder(jsonl)
	dec.UseNumber()
	for {
		var op Op
		if err := dec.Decode(&op); errors.Is(err, io.EOF) {
			return out.Flush()
		} else if err != nil {
			return fmt.Errorf("the record: %w", err)
		}
		process := strconv.Itoa(op.Process)
		if op.Process == Nemesis {
			process = ":nemesis"
		}
		fmt.Fprintf(out, "{:index %d, :time %d, :process %s, :type :%s, :f :%s, :value %s",
			op.Index, op.Time, process, op.Type, op.F, ednValue(op.Value))
		for _, f := range []struct{ name, text string }{{"node", op.Node}, {"workload", op.Workload}, {"error", op.Error}} {
			if f.text != "" {
				fmt.Fprintf(out, ", :%s %s", f.name, ednString(f.text))
			}
		}
		out.WriteString("}\n")
	}
}

func ednValue(v any) string {
	switch v := v.(type) {
	case nil:
		return "nil"
	case json.Number:
		return v.String()
	case string:
		return ednString(v)
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			if s, ok := e.(string); ok && i == 0 && len(v) == 3 && (s == "append" || s == "r") {
				parts[i] = ":" + s
				continue
			}
			parts[i] = ednValue(e)
		}
		return "[" + strings.Join(parts, " ") + "]"
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		parts := make([]string, len(names))
		for i, name := range names {
			parts[i] = ":" + name + " " + ednValue(v[name])
		}
		return "{" + strings.Join(parts, ", ") + "}"
	default:
		return fmt.Sprint(v) // a bool
	}
}

// ednString quotes: EDN knows the escapes of JSON, and takes all else as it is.
func ednString(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}
