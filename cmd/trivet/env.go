package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// envName is the environment variable of a flag: TRIVET_INITIAL_CLUSTER of
// --initial-cluster.
func envName(flag string) string {
	return "TRIVET_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// applyEnv sets the flags that the command line has not set from their
// environment variables. A variable that is empty counts as not set, because
// that is how scripts and unit files leave one out. The error names the
// variable.
func applyEnv(flags *pflag.FlagSet) (err error) {
	flags.VisitAll(func(f *pflag.Flag) {
		if err != nil || f.Changed || f.Name == "help" || f.Name == "version" {
			return
		}
		value := os.Getenv(envName(f.Name))
		if value == "" {
			return
		}
		if serr := f.Value.Set(value); serr != nil {
			err = fmt.Errorf("environment variable %s: invalid value %q: %w", envName(f.Name), value, serr)
			return
		}
		// What is set here counts as given, for required flags and the like.
		f.Changed = true
	})
	return err
}
