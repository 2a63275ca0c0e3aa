package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"trivet/client"
)

func newWatch() *cobra.Command {
	var prefix, command string
	var from uint64
	var initial bool
	cmd := &cobra.Command{
		Use:   "watch (KEY | --prefix P)",
		Short: "Print changes as they happen, or run a command for each",
		Long: `Print every change of a key, or of all keys that start with a prefix, until
Ctrl-C: a line an event, with tabs between the revision, what happened (put,
delete or expired), the key and, after a put, the value. What would break the line
is quoted like a Go string. An empty prefix is all keys.

Nothing is left out and nothing comes twice: where a node goes away, another one
continues. --from begins with an old revision, as long as it is retained;
--initial prints the items that are there first (item). Where these are cut short
by the loss of a node they begin anew, behind a line that says reset.

--json prints the frames of the HTTP API, one a line: change, items, synced and
reset.

--exec runs a shell command for each event instead, one after the other, with the
value on its standard input and in its environment TRIVET_EVENT (put, delete,
expired, item or reset), TRIVET_KEY, TRIVET_MOD_REVISION and TRIVET_VALUE. What
cannot be there (a key with a zero byte, a value with one or longer than 64 KiB)
is left out; TRIVET_KEY64 is always there, in base64. A command that fails is
reported, and the next one runs.

Exit status 0 after Ctrl-C; 3 where the revision is no longer retained
(compacted): begin again with --initial.`,
		Example: `  trivet watch greeting
  trivet watch --prefix config/ --initial
  trivet watch --prefix jobs/ --exec 'echo "$TRIVET_EVENT $TRIVET_KEY"; cat'
  trivet watch --prefix '' --json | jq -r '.events[]?.key'`,
		Args: takes(0, 1),
	}
	flags := cmd.Flags()
	flags.StringVar(&prefix, "prefix", "", "watch all keys that start with this")
	flags.Uint64Var(&from, "from", 0, "begin with the changes of this revision (default: those to come)")
	flags.BoolVar(&initial, "initial", false, "print the items that are there first")
	flags.StringVar(&command, "exec", "", "run this shell command for each event")
	cmd.MarkFlagsMutuallyExclusive("from", "initial")
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		if flags.Changed("prefix") == (len(args) == 1) {
			return failf(exitUsage, "need either a KEY or --prefix: %s", cmd.UseLine())
		}
		keys := client.Prefix(prefix)
		if len(args) == 1 {
			keys = client.Key(args[0])
		}
		var options []client.WatchOption
		switch {
		case flags.Changed("from") && from == 0:
			return failf(exitUsage, "--from takes a revision from 1 on")
		case flags.Changed("from"):
			options = append(options, client.FromRevision(from))
		case initial:
			options = append(options, client.Initial())
		}
		c, ctx, end, err := f.open(cmd, true)
		if err != nil {
			return err
		}
		defer end()
		tell := printFrame(cmd.OutOrStdout())
		switch {
		case command != "":
			tell = (&watchExec{cmd, command}).frame
		case f.json:
			tell = encodeFrame(cmd.OutOrStdout())
		}
		return watch(ctx, c, keys, options, f.timeout, tell)
	})
	return cmd
}

// errNoFrame ends a watch that no node serves.
var errNoFrame = errors.New("no node serves it")

// watch tells of every frame until ctx ends, which is no failure. A node has
// something to say at once; that none does within patience is one.
func watch(ctx context.Context, c *client.Client, keys client.KeyRange, options []client.WatchOption, patience time.Duration, tell func(context.Context, client.WatchFrame) error) error {
	watching, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	first := time.AfterFunc(patience, func() { cancel(errNoFrame) })
	defer first.Stop()
	for frame, err := range c.Watch(watching, keys, options...) {
		first.Stop()
		if err == nil {
			err = tell(ctx, frame)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// eventLine is an event as it is told: an event of a frame, or an item of the
// beginning.
type eventLine struct {
	name string // put, delete, expired, item or reset
	item client.Item
}

// linesOf is what a frame has to tell.
func linesOf(f client.WatchFrame) (lines []eventLine) {
	if f.Kind == client.FrameReset {
		return []eventLine{{name: "reset"}}
	}
	for _, item := range f.Items {
		lines = append(lines, eventLine{"item", item})
	}
	for _, e := range f.Events {
		name := e.Type.String()
		if e.Expired {
			name = "expired"
		}
		lines = append(lines, eventLine{name, e.Item})
	}
	return lines
}

// printFrame prints a line an event.
func printFrame(out io.Writer) func(context.Context, client.WatchFrame) error {
	return func(_ context.Context, f client.WatchFrame) error {
		var b []byte
		for _, l := range linesOf(f) {
			switch l.name {
			case "reset":
				b = append(b, "0\treset\n"...)
			case "delete", "expired":
				b = fmt.Appendf(b, "%d\t%s\t%s\n", l.item.ModRevision, l.name, shown(l.item.Key))
			default:
				b = fmt.Appendf(b, "%d\t%s\t%s\t%s\n", l.item.ModRevision, l.name, shown(l.item.Key), shown(l.item.Value))
			}
		}
		_, err := out.Write(b)
		return err
	}
}

// encodeFrame prints frames as the HTTP API has them.
func encodeFrame(out io.Writer) func(context.Context, client.WatchFrame) error {
	type frameJSON struct {
		Type     string     `json:"type"`
		Revision uint64     `json:"revision,omitempty"`
		Items    []itemJSON `json:"items,omitempty"`
		Events   []any      `json:"events,omitempty"`
	}
	encoder := newJSON(out)
	return func(_ context.Context, f client.WatchFrame) error {
		doc := frameJSON{Revision: f.Revision}
		switch f.Kind {
		case client.FrameReset:
			doc.Type = "reset"
		case client.FrameSynced:
			doc.Type = "synced"
		case client.FrameItems:
			doc.Type = "items"
			for _, item := range f.Items {
				doc.Items = append(doc.Items, jsonOf(item))
			}
		case client.FrameChange:
			doc.Type = "change"
			for _, e := range f.Events {
				doc.Events = append(doc.Events, eventOf(e))
			}
		}
		return encoder.Encode(doc)
	}
}

// eventOf is an event as the HTTP API has it.
func eventOf(e client.Event) any {
	item := jsonOf(e.Item)
	if e.Type == client.EventPut {
		return struct {
			Type string `json:"type"`
			itemJSON
		}{"put", item}
	}
	reason := "delete"
	if e.Expired {
		reason = "expired"
	}
	return struct {
		Type        string  `json:"type"`
		Key         *string `json:"key,omitempty"`
		Key64       []byte  `json:"key64,omitempty"`
		ModRevision uint64  `json:"mod_revision"`
		Reason      string  `json:"reason"`
	}{"delete", item.Key, item.Key64, item.ModRevision, reason}
}
