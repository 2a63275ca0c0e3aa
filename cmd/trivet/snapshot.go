package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"trivet/client"
	"trivet/store"
)

func newSnapshot() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot COMMAND",
		Short: "Save the whole state to a file, restore it, look into a file",
		Long: `A snapshot is the whole state of a cluster in one file: keys with their retained
history, leases, and what is remembered of idempotency keys.`,
		Example: `  trivet snapshot save backup.snapshot
  trivet snapshot inspect backup.snapshot`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failf(exitUsage, "a command is missing: %s save, restore or inspect", cmd.CommandPath())
		},
	}
	cmd.AddCommand(newSnapshotSave(), newSnapshotRestore(), newSnapshotInspect())
	return cmd
}

func newSnapshotSave() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Save the whole state of the cluster",
		Long: `Save the whole state of the cluster, as it is now, to FILE, or to standard output
where FILE is -. The file is verified before it takes its name: FILE is what it
was before, or a whole snapshot.`,
		Example: `  trivet snapshot save backup.snapshot`,
		Args:    takes(1, 1),
	}
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		c, ctx, end, err := f.open(cmd, true)
		if err != nil {
			return err
		}
		defer end()
		p := newProgress(cmd.ErrOrStderr(), "saved")
		if args[0] == "-" {
			defer p.end()
			return c.SnapshotSave(ctx, cmd.OutOrStdout(), p.at)
		}
		info, err := saveTo(args[0], func(w io.Writer) error { return c.SnapshotSave(ctx, w, p.at) })
		p.end()
		if err != nil {
			return err
		}
		return printSnapshot(cmd.OutOrStdout(), f.json, args[0], info)
	})
	return cmd
}

// saveTo has write write a file beside path, verifies it, and gives it the name
// once it is on disk. Nothing is left of it where that fails.
func saveTo(path string, write func(io.Writer) error) (_ *store.SnapshotInfo, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.part")
	if err != nil {
		return nil, err
	}
	defer func() {
		file.Close()
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	if err := write(file); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	info, err := store.VerifySnapshot(bufio.NewReaderSize(file, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("what was received is no whole snapshot: %w", err)
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return nil, err
	}
	return info, syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func newSnapshotRestore() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a snapshot in the place of the whole state of the cluster",
		Long: `Put a snapshot in the place of the whole state of the cluster, on all nodes in one
step. FILE is verified first. What the cluster holds now is gone, locks and
sessions end, and watches are told to begin anew.`,
		Example: `  trivet snapshot restore backup.snapshot --yes`,
		Args:    takes(1, 1),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask first")
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		file, err := os.Open(args[0])
		if err != nil {
			return withStatus(exitUsage, err)
		}
		defer file.Close()
		info, err := store.VerifySnapshot(bufio.NewReaderSize(file, 1<<20))
		if err != nil {
			return failf(exitUsage, "%s: %w", args[0], err)
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if !yes {
			if err := confirm(cmd, args[0], info); err != nil {
				return err
			}
		}
		c, ctx, end, err := f.open(cmd, true)
		if err != nil {
			return err
		}
		defer end()
		p := newProgress(cmd.ErrOrStderr(), "sent")
		r, err := c.SnapshotRestore(ctx, file, p.at)
		p.end()
		if err != nil {
			return err
		}
		return done(printRestored(cmd.OutOrStdout(), f.json, r))
	})
	return cmd
}

// confirm asks whether the cluster's state is to be replaced. Where nobody can
// answer, the answer is no.
func confirm(cmd *cobra.Command, path string, info *store.SnapshotInfo) error {
	return ask(cmd, fmt.Sprintf("Replace the whole state of the cluster by the %d keys of %s?", info.Keys, path),
		"restore replaces the whole state of the cluster: say --yes if that is meant", "not restored")
}

// ask asks on the terminal; an error says that the answer was no. Where nobody can
// be asked, unasked says so.
func ask(cmd *cobra.Command, question, unasked, no string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !isTerminal(in) {
		return failf(exitUsage, "%s", unasked)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return failf(exitNo, "%s", no)
}

func printRestored(w io.Writer, asJSON bool, r client.RestoreResult) error {
	if asJSON {
		return newJSON(w).Encode(struct {
			Revision uint64 `json:"revision"`
			Keys     uint64 `json:"keys"`
			Bytes    uint64 `json:"bytes"`
			Leases   uint64 `json:"leases"`
		}{r.Revision, r.Keys, r.Bytes, r.Leases})
	}
	_, err := fmt.Fprintf(w, "restored %d keys and %d leases, at revision %d\n", r.Keys, r.Leases, r.Revision)
	return err
}

func newSnapshotInspect() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Verify a snapshot file and say what is in it",
		Long: `Verify a snapshot file, from its first byte to its checksum, and say what is in
it. No cluster is asked.`,
		Example: `  trivet snapshot inspect backup.snapshot`,
		Args:    takes(1, 1),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = action(exitNo, func(cmd *cobra.Command, args []string) error {
		file, err := os.Open(args[0])
		if err != nil {
			return withStatus(exitUsage, err)
		}
		defer file.Close()
		info, err := store.VerifySnapshot(bufio.NewReaderSize(file, 1<<20))
		if err != nil {
			return failf(exitNo, "%s: %w", args[0], err)
		}
		return printSnapshot(cmd.OutOrStdout(), asJSON, args[0], info)
	})
	return cmd
}

// snapshotJSON is what a snapshot file holds.
type snapshotJSON struct {
	File            string `json:"file"`
	Format          uint32 `json:"format"`
	FileBytes       uint64 `json:"file_bytes"`
	Index           uint64 `json:"index"`
	Revision        uint64 `json:"revision"`
	CompactRevision uint64 `json:"compact_revision"`
	Keys            uint64 `json:"keys"`
	Bytes           uint64 `json:"bytes"`
	Versions        uint64 `json:"versions"`
	Leases          uint64 `json:"leases"`
	Answers         uint64 `json:"answers"`
	StateHash       string `json:"state_hash"`
}

func printSnapshot(w io.Writer, asJSON bool, path string, info *store.SnapshotInfo) error {
	h := info.Header
	s := snapshotJSON{
		File: path, Format: info.Format, FileBytes: info.FileBytes,
		Index: h.GetIndex(), Revision: h.GetRevision(), CompactRevision: h.GetCompactRevision(),
		Keys: info.Keys, Bytes: info.Bytes, Versions: info.Versions, Leases: info.Leases, Answers: info.Answers,
		StateHash: fmt.Sprintf("%016x", h.GetStateHash()),
	}
	if asJSON {
		return newJSON(w).Encode(s)
	}
	_, err := fmt.Fprintf(w, `file              %s, whole
size              %d bytes, format %d
revision          %d
compact revision  %d
keys              %d, of %d bytes
versions          %d
leases            %d
answers           %d
state hash        %s
`, s.File, s.FileBytes, s.Format, s.Revision, s.CompactRevision, s.Keys, s.Bytes, s.Versions, s.Leases, s.Answers, s.StateHash)
	return err
}
