package main

import (
	"time"

	"github.com/spf13/cobra"

	"trivet/client"
)

// readFlags say how fresh a read must be.
type readFlags struct {
	consistency  *choice
	maxStaleness time.Duration
	minRevision  uint64
}

func addReadFlags(cmd *cobra.Command) *readFlags {
	f := &readFlags{}
	f.consistency = choiceFlag(cmd, "consistency", "how fresh the answer is", "linearizable", "bounded", "session", "stale")
	cmd.Flags().DurationVar(&f.maxStaleness, "max-staleness", 0, "with bounded: writes older than this are seen")
	cmd.Flags().Uint64Var(&f.minRevision, "min-revision", 0, "with session: this revision and all before it are seen")
	return f
}

// freshness turns the flags into options of the client. A bound that is given
// alone says by itself which consistency is meant.
func (f *readFlags) freshness(cmd *cobra.Command) ([]client.Freshness, error) {
	named := cmd.Flags().Changed("consistency")
	bounded, session := cmd.Flags().Changed("max-staleness"), cmd.Flags().Changed("min-revision")
	name := f.consistency.value
	if !named && bounded {
		name = "bounded"
	} else if !named && session {
		name = "session"
	}
	var options []client.Freshness
	switch {
	case bounded && f.maxStaleness <= 0:
		return nil, failf(exitUsage, "--max-staleness must be more than zero")
	case bounded && name != "bounded" && name != "session":
		return nil, failf(exitUsage, "--max-staleness does not go with --consistency %s", name)
	case session && name == "stale":
		return nil, failf(exitUsage, "--min-revision does not go with --consistency stale")
	case name == "bounded" && !bounded:
		return nil, failf(exitUsage, "--consistency bounded needs --max-staleness")
	case name == "session" && !session:
		return nil, failf(exitUsage, "--consistency session needs --min-revision")
	case name == "linearizable":
		options = append(options, client.Linearizable())
	case name == "stale":
		options = append(options, client.AnyState())
	}
	if bounded {
		options = append(options, client.MaxStaleness(f.maxStaleness))
	}
	if session {
		options = append(options, client.MinRevision(f.minRevision))
	}
	return options, nil
}
