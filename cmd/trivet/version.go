package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is the version of a release build: -ldflags "-X main.release=v1.2.3".
var release string

// version is the program's version: that of the release, else the module's,
// else the commit that it was built from.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	v := "devel"
	if commit := settings["vcs.revision"]; len(commit) >= 12 {
		v += "-" + commit[:12]
	}
	if settings["vcs.modified"] == "true" {
		v += "-modified"
	}
	return v
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this binary",
		Long:    "Print the version of this binary, and the Go release and platform of its build.",
		Example: "  trivet version",
		Args:    takes(0, 0),
		RunE: action(exitUnserved, func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "trivet %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		}),
	}
}
