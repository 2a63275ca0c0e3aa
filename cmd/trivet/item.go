package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"trivet/client"
)

// itemJSON is an item as the HTTP API has it: bytes as text where they are UTF-8
// text, as base64 under another name where they are not.
type itemJSON struct {
	Key            *string `json:"key,omitempty"`
	Key64          []byte  `json:"key64,omitempty"`
	Value          *string `json:"value,omitempty"`
	Value64        []byte  `json:"value64,omitempty"`
	CreateRevision uint64  `json:"create_revision"`
	ModRevision    uint64  `json:"mod_revision"`
	Version        uint64  `json:"version"`
	Lease          uint64  `json:"lease"`
}

func jsonOf(it client.Item) itemJSON {
	j := itemJSON{CreateRevision: it.CreateRevision, ModRevision: it.ModRevision, Version: it.Version, Lease: it.Lease}
	j.Key, j.Key64 = textOrBytes([]byte(it.Key))
	if it.Value != nil {
		j.Value, j.Value64 = textOrBytes(it.Value)
	}
	return j
}

func textOrBytes(b []byte) (*string, []byte) {
	if !utf8.Valid(b) {
		return nil, b
	}
	text := string(b)
	return &text, nil
}

// newJSON returns an encoder of NDJSON that leaves <, > and & alone.
func newJSON(out io.Writer) *json.Encoder {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	return e
}

// shown is text for a line of output: as it is, or quoted like a Go string where
// it holds what would break the line, or could be taken for quoted.
func shown[T ~string | ~[]byte](s T) string {
	text := string(s)
	if strings.HasPrefix(text, `"`) || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// printItem prints all there is to an item, a line a field.
func printItem(out io.Writer, it client.Item) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "key:\t%s\n", shown(it.Key))
	fmt.Fprintf(table, "value:\t%s\n", shown(it.Value))
	for _, f := range []struct {
		name  string
		value uint64
	}{
		{"create_revision", it.CreateRevision}, {"mod_revision", it.ModRevision}, {"version", it.Version}, {"lease", it.Lease},
	} {
		fmt.Fprintf(table, "%s:\t%d\n", f.name, f.value)
	}
	return table.Flush()
}
