package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// devNode is one node of the local cluster. Its fields belong to dev's one loop
// (dev.go).
type devNode struct {
	id, url   string
	api, peer string // addresses
	data, log string // folder, file
	command   []string

	// process is what runs, nil where nothing of ours does.
	process   *os.Process
	logOffset int64 // where this process's log begins
	backoff   time.Duration

	// died is when the last process was seen to have ended.
	died time.Time

	// seen is the last answer; absent says that the node was reported as gone.
	seen   observation
	absent bool
}

// devExit is the end of a node's process.
type devExit struct {
	node *devNode
	how  string // exit status or signal
}

// start starts the node's process. Its end is sent to exits.
func (n *devNode) start(s *childStarter, program string, exits chan<- devExit) error {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if info, err := log.Stat(); err == nil {
		n.logOffset = info.Size()
	}
	cmd := &exec.Cmd{
		Path:        program,
		Args:        n.command,
		Env:         devEnv(os.Environ()),
		Stdout:      log,
		Stderr:      log,
		SysProcAttr: childAttr(),
	}
	if err := s.start(cmd); err != nil {
		return fmt.Errorf("starting %s: %w", n.id, err)
	}
	n.process = cmd.Process
	go func() {
		cmd.Wait() // its error says the same as the state
		exits <- devExit{n, cmd.ProcessState.String()}
	}()
	return nil
}

// signal sends a signal to the node's process, if one runs. One that has just
// ended is reported by its exit.
func (n *devNode) signal(s syscall.Signal) {
	if n.process != nil {
		_ = n.process.Signal(s)
	}
}

// why is what the node's process last said.
func (n *devNode) why() string {
	return strings.TrimPrefix(lastLine(n.log, n.logOffset), "trivet: ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=,@%+-]+$`)

// shellLine is a command line that a shell takes apart again as it was.
func shellLine(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		if quoted[i] = w; !plainWord.MatchString(w) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// devEnv is dev's own environment for the nodes, so that TRIVET_QUOTA and the
// like reach them, without what can only be one node's.
func devEnv(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		for _, flag := range []string{"id", "data", "api", "peer", "initial-cluster", "join", "role", "cluster-token", "advertise-api", "advertise-peer"} {
			if strings.HasPrefix(v, envName(flag)+"=") {
				return true
			}
		}
		return false
	})
}
