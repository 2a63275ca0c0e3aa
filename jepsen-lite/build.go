package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"trivet/jepsen-lite/cluster"
)

// build makes trivet's binary from the module that this program is of, and
// returns its path.
func (o *options) build(ctx context.Context, dir string) (string, error) {
	const command = "trivet/cmd/trivet"
	if o.wallClocks {
		return cluster.BuildWithWallClocks(ctx, dir, command, o.tags)
	}
	path, err := filepath.Abs(filepath.Join(dir, "trivet"))
	if err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, "go", "build", "-tags", o.tags, "-o", path, command).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build trivet (run this inside its module, or give --binary): %w\n%s", err, out)
	}
	return path, nil
}
