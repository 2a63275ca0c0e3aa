package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
)

func newTxn() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "txn",
		Short: "Run a transaction, given as JSON",
		Long: `Run a transaction: a JSON document on standard input, as POST /v1/txn takes it. If
all comparisons of "if" hold, the operations of "then" are done, else those of
"else": all or none, at one revision. The result is printed as JSON.

A comparison names a key (or a prefix: it must hold for every key there), a
target (value, version, create_revision, mod_revision or lease), an op (== != <
<= > >=) and a number or a value. An operation is a put, delete, get, range or
add.

Exit status 0 where "then" was done, 1 where "else" was. A txn that only reads
takes --consistency.`,
		Example: `  # move a booking only if nobody has taken the new slot
  trivet txn <<'EOT'
  {"if":   [{"key": "slot/9", "target": "version", "op": "==", "number": 0}],
   "then": [{"op": "put", "key": "slot/9", "value": "ann"},
            {"op": "delete", "key": "slot/8"}],
   "else": [{"op": "get", "key": "slot/9"}]}
  EOT`,
		Args: takes(0, 0),
	}
	read := addReadFlags(cmd)
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return err
		}
		// The node checks it all once more; here is the place to be told of a
		// wrong combination by the names of the flags.
		if _, err := read.freshness(cmd); err != nil {
			return err
		}
		query := url.Values{}
		flags := cmd.Flags()
		if flags.Changed("consistency") {
			query.Set("consistency", read.consistency.value)
		} else if flags.Changed("max-staleness") {
			query.Set("consistency", "bounded")
		} else if flags.Changed("min-revision") {
			query.Set("consistency", "session")
		}
		if flags.Changed("max-staleness") {
			query.Set("max_staleness", read.maxStaleness.String())
		}
		if flags.Changed("min-revision") {
			query.Set("min_revision", strconv.FormatUint(read.minRevision, 10))
		}
		endpoints, err := f.urls()
		if err != nil {
			return err
		}
		document, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxTxnBytes+1))
		switch {
		case err != nil:
			return fmt.Errorf("reading standard input: %w", err)
		case len(document) > maxTxnBytes:
			return failf(exitUsage, "too_large: the document on standard input is longer than %v", size(maxTxnBytes))
		case len(bytes.TrimSpace(document)) == 0:
			return failf(exitUsage, "bad_request: there is no document on standard input")
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		answer, err := newRawClient(f.token).post(ctx, endpoints, "/v1/txn", query, document, f.timeout)
		if err != nil {
			return err
		}
		var result struct {
			Succeeded *bool `json:"succeeded"`
		}
		if err := json.Unmarshal(answer, &result); err != nil || result.Succeeded == nil {
			return failf(exitUnknown, "bad_response: an answer that no node gives")
		}
		if _, err := cmd.OutOrStdout().Write(answer); err != nil {
			return done(err)
		}
		if !*result.Succeeded {
			return &exitError{status: exitNo}
		}
		return nil
	})
	return cmd
}

// maxTxnBytes is more than a node takes by default; the node says where its
// limit is.
const maxTxnBytes = 64 << 20
