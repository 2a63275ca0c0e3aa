package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"trivet/client"
)

func newLock() *cobra.Command {
	var l lockFlags
	cmd := &cobra.Command{
		Use:   "lock NAME -- CMD…",
		Short: "Run a command while holding a lock",
		Long: `Run a command while holding a lock that only one at a time holds in the whole
cluster. Where another holds it, wait: first come, first served. The lock is kept
alive while CMD runs and released when it ends, however it ends; where this
process or its machine is gone, the lock is free after --ttl.

CMD finds TRIVET_LOCK_NAME and TRIVET_LOCK_TOKEN in its environment. The token is
greater than that of any holder before; with it a write can be held to the lock
(put --guard NAME=TOKEN). SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on to CMD
and what it started. Where the lock is lost or may be, because the cluster could
not be reached in time, CMD is ended: by SIGTERM, and by SIGKILL after --grace.

Ctrl-C while waiting leaves the queue.

The exit status is CMD's, 128 and the signal where one ended it; 3 where the lock
was not got and CMD not run; 4 where the lock was or may have been lost before CMD
ended.`,
		Example: `  trivet lock deploy -- ./deploy.sh
  trivet lock nightly --wait 0s -- ./report || echo somebody is at it
  trivet lock jobs -- sh -c 'trivet put job done --guard jobs=$TRIVET_LOCK_TOKEN'`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case len(args) == 0, dash == 0:
				return fmt.Errorf("an argument is missing: %s", cmd.UseLine())
			case dash < 0 || dash == len(args):
				return fmt.Errorf(`a command is missing behind a "--": %s`, cmd.UseLine())
			case dash > 1:
				return fmt.Errorf("unexpected argument %q: %s", args[1], cmd.UseLine())
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&l.ttl, "ttl", 10*time.Second, "the lock is free this long after its holder is gone")
	flags.DurationVar(&l.wait, "wait", 0, "wait this long at most, 0s for not at all (default: until it is free)")
	flags.StringVar(&l.owner, "owner", "", "who holds it, for others to see (default: the host and this process)")
	flags.DurationVar(&l.grace, "grace", 5*time.Second, "how long CMD may take to end when the lock is lost")
	f := addConnectionFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		switch {
		case l.wait < 0:
			return failf(exitUsage, "--wait must not be negative")
		case l.grace < 0:
			return failf(exitUsage, "--grace must not be negative")
		}
		program, err := exec.LookPath(args[1])
		if err != nil {
			return failf(exitUsage, "%v", err)
		}
		c, ctx, end, err := f.open(cmd, true)
		if err != nil {
			return err
		}
		defer end()
		lock, err := l.acquire(ctx, c, cmd, args[0])
		if err != nil {
			return err
		}
		held := &heldCommand{lock: lock, grace: l.grace, cmd: &exec.Cmd{
			Path: program, Args: args[1:], SysProcAttr: childAttr(),
			Env: append(os.Environ(), "TRIVET_LOCK_NAME="+lock.Name(), fmt.Sprintf("TRIVET_LOCK_TOKEN=%d", lock.Token())),
		}}
		held.cmd.Stdin, held.cmd.Stdout, held.cmd.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
		status, runErr := held.run(ctx)

		// Whatever ended CMD, a signal included, others are to have the lock.
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.timeout)
		defer cancel()
		unlockErr := lock.Unlock(release)
		switch {
		case runErr != nil:
			return runErr
		case errors.Is(unlockErr, client.ErrGuardFailed):
			return lost(lock, unlockErr)
		case unlockErr != nil:
			fmt.Fprintf(cmd.ErrOrStderr(), "trivet: %s; the lock is free in %v\n", oneLine(unlockErr), l.ttl)
		}
		if status != 0 {
			return &exitError{status: status}
		}
		return nil
	})
	return cmd
}

type lockFlags struct {
	ttl, wait, grace time.Duration
	owner            string
}

// acquire waits for the lock. An error of it exits with 3, or 2 where the request
// was wrong: whatever became of the lock, CMD has not run.
func (l *lockFlags) acquire(ctx context.Context, c *client.Client, cmd *cobra.Command, name string) (*client.Lock, error) {
	owner := l.owner
	if owner == "" {
		host, _ := os.Hostname()
		owner = fmt.Sprintf("%s, process %d", host, os.Getpid())
	}
	// A process that a signal ends cannot give back later what it waited for.
	options := []client.LockOption{client.WithTTL(l.ttl), client.WithOwner(owner), client.LeaveWithConnection()}
	waits := !cmd.Flags().Changed("wait")
	if !waits {
		options = append(options, client.WithWait(l.wait))
	}
	if terminalOf(cmd.ErrOrStderr()) != nil && (waits || l.wait > 0) {
		lock, err := c.TryLock(ctx, name, options...)
		var e *client.Error
		if !errors.As(err, &e) || !errors.Is(err, client.ErrLocked) {
			return lock, l.refused(ctx, name, err)
		}
		if e.Holder != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "trivet: waiting for the lock, which %s holds\n", shown(e.Holder.Owner))
		}
	}
	lock, err := c.Lock(ctx, name, options...)
	return lock, l.refused(ctx, name, err)
}

func (l *lockFlags) refused(ctx context.Context, name string, err error) error {
	var e *client.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return failf(exitUnserved, "lock %s: interrupted while waiting", shown(name))
	case errors.As(err, &e) && errors.Is(err, client.ErrLocked) && e.Holder != nil:
		return failf(exitUnserved, "lock %s: locked: %s holds it", shown(name), shown(e.Holder.Owner))
	case errors.Is(err, client.ErrBadRequest):
		return &exitError{exitUsage, err}
	}
	return &exitError{exitUnserved, err}
}

// lost is the failure of a lock that did not last as long as CMD.
func lost(lock *client.Lock, err error) error {
	return failf(exitUnknown, "lock %s: lost, or may have been, before the command ended: %s", shown(lock.Name()), oneLine(err))
}
