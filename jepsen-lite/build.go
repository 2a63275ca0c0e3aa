package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// build makes trivet's binary from the module that this program is of, and
// returns its path.
func build(ctx context.Context, dir string) (string, error) {
	path, err := filepath.Abs(filepath.Join(dir, "trivet"))
	if err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "trivet/cmd/trivet").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build trivet (run this inside its module, or give --binary): %w\n%s", err, out)
	}
	return path, nil
}
