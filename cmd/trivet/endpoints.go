package main

import (
	"context"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"trivet/client"
)

// defaultEndpoints are the nodes of `trivet dev`.
var defaultEndpoints = []string{"http://127.0.0.1:7071", "http://127.0.0.1:7072", "http://127.0.0.1:7073"}

// clusterFlags are the flags of every command that talks to a cluster.
type clusterFlags struct {
	endpoints []string
	token     string
	timeout   time.Duration
	json      bool
}

func addClusterFlags(cmd *cobra.Command) *clusterFlags {
	f := addConnectionFlags(cmd)
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON instead of text")
	return f
}

// addConnectionFlags is addClusterFlags for a command that prints nothing of its
// own.
func addConnectionFlags(cmd *cobra.Command) *clusterFlags {
	f := &clusterFlags{}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringSliceVar(&f.endpoints, "endpoints", defaultEndpoints, "URLs of nodes; any of them will do")
	flags.StringVar(&f.token, "token", "", "secret that goes with every request")
	flags.DurationVar(&f.timeout, "timeout", 5*time.Second, "how long the cluster may take")
	return f
}

// check refuses what cannot be meant.
func (f *clusterFlags) check() error {
	if f.timeout <= 0 {
		return failf(exitUsage, "--timeout must be more than zero")
	}
	return nil
}

// urls returns the endpoints, checked.
func (f *clusterFlags) urls() ([]string, error) {
	var endpoints []string
	for _, e := range f.endpoints {
		u, err := url.Parse(e)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, failf(exitUsage, "--endpoints: %q is no URL such as http://127.0.0.1:7071", e)
		}
		endpoints = append(endpoints, strings.TrimRight(e, "/"))
	}
	return endpoints, nil
}

// open returns a client, and a context that ends with the timeout or with a
// signal. Both are given back by the function.
//
// discover lets the client find the members by itself. A single call has no use
// for that, and who names a node means that one; nor has it for a session, which
// would be two more writes.
func (f *clusterFlags) open(cmd *cobra.Command, discover bool) (*client.Client, context.Context, func(), error) {
	if err := f.check(); err != nil {
		return nil, nil, nil, err
	}
	if _, err := f.urls(); err != nil {
		return nil, nil, nil, err
	}
	c, err := client.Open(cmd.Context(), client.Config{
		Endpoints:        f.endpoints,
		Token:            f.token,
		Timeout:          f.timeout,
		DisableDiscovery: !discover,
		DisableSessions:  !discover,
	})
	if err != nil {
		return nil, nil, nil, failf(exitUsage, "%s", strings.TrimPrefix(err.Error(), "trivet: open: "))
	}
	ctx, stop := interruptible(cmd.Context())
	return c, ctx, func() {
		stop()
		c.Close()
	}, nil
}

// interruptible returns a context that ends with Ctrl-C or SIGTERM, so that a
// call that is cut off can still say what became of it.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}
