//go:build mutants

package mutant

import "os"

var chosen = os.Getenv("TRIVET_MUTANT")

// On says whether the program is to be broken in this way.
func On(name string) bool { return name == chosen }
