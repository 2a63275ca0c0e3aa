package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"trivet/client"
)

// guardFlag is --guard: the locks that must be held for a write to be applied.
type guardFlag struct {
	texts []string
}

func addGuardFlag(cmd *cobra.Command) *guardFlag {
	f := &guardFlag{}
	cmd.Flags().StringArrayVar(&f.texts, "guard", nil, "NAME=TOKEN: write only while that lock is held with that token")
	return f
}

// options returns a guard for each. The token stands behind the last "=", as a
// name may have one.
func (f *guardFlag) options() ([]client.GuardOption, error) {
	var options []client.GuardOption
	for _, text := range f.texts {
		at := strings.LastIndexByte(text, '=')
		token, err := strconv.ParseUint(text[at+1:], 10, 64)
		if at < 1 || err != nil || token == 0 {
			return nil, failf(exitUsage, "--guard: %q is no NAME=TOKEN such as jobs/nightly=42", text)
		}
		options = append(options, client.WithGuard(text[:at], token))
	}
	return options, nil
}
