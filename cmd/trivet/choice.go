package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// choice is a flag's value that is one of a few names.
type choice struct {
	value string
	names []string
}

func (c *choice) String() string { return c.value }

// Set is for flags.
func (c *choice) Set(text string) error {
	if !slices.Contains(c.names, text) {
		return fmt.Errorf("need one of %s", strings.Join(c.names, ", "))
	}
	c.value = text
	return nil
}

// Type is what help calls the value.
func (c *choice) Type() string { return "name" }

// choiceFlag adds a flag that takes one of the names, the first by default, and
// completes them in shells.
func choiceFlag(cmd *cobra.Command, name, usage string, names ...string) *choice {
	c := &choice{value: names[0], names: names}
	cmd.Flags().Var(c, name, usage+": "+strings.Join(names, ", "))
	// It fails only for a flag that is not there.
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	return c
}
