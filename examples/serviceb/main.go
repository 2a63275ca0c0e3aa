// Serviceb is a shopping cart service that keeps nothing in its instances: any
// number of them share their state through a Trivet cluster, and any request may
// go to any of them. Read carts.go for how; README.md shows it at work.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"trivet/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "serviceb:", err)
		os.Exit(1)
	}
}

// drainTime is how long the requests under way may take to finish when the
// service is told to stop.
const drainTime = 10 * time.Second

// run serves until ctx ends, then lets the requests under way finish. It returns
// nil where they did.
func run(ctx context.Context, args []string, getenv func(string) string, logTo io.Writer) error {
	flags := flag.NewFlagSet("serviceb", flag.ContinueOnError)
	flags.SetOutput(logTo)
	listen := flags.String("listen", cmp.Or(getenv("SERVICEB_LISTEN"), "127.0.0.1:8081"),
		"address to listen on ($SERVICEB_LISTEN)")
	endpoints := flags.String("trivet", cmp.Or(getenv("SERVICEB_TRIVET"), "http://127.0.0.1:7071,http://127.0.0.1:7072,http://127.0.0.1:7073"),
		"URLs of Trivet nodes, separated by commas ($SERVICEB_TRIVET)")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp // flags has said why
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	log := slog.New(slog.NewTextHandler(logTo, nil))

	// Opening contacts nobody: the service starts whether the cluster is up or not.
	store, err := client.Open(ctx, client.Config{
		Endpoints: strings.Split(*endpoints, ","),
		Token:     getenv("SERVICEB_TRIVET_TOKEN"), // a flag would show in ps
		Timeout:   5 * time.Second,
		Logger:    log,
	})
	if err != nil {
		return err
	}
	defer store.Close()

	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	log.Info("listening", "url", "http://"+l.Addr().String())
	srv := &http.Server{
		Handler:           newService(store, ctx.Done()),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info("stopping")
	drained, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := srv.Shutdown(drained); err != nil {
		return fmt.Errorf("not every request finished within %v: %w", drainTime, err)
	}
	<-served
	log.Info("stopped")
	return nil
}
