// Command bench runs the same work against Trivet and against what a user would pick
// instead, on one machine in one run, and says how they compare.
//
// `make bench-peers` runs it; README.md says what it does, and its flags.
//
// main.go has the flags and puts the rest together, machine.go says what it runs on,
// profile.go profiles the load generator.
// The work is in internal: load (the load generator), systems (what is compared),
// rows (what is measured), report (what comes out).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"trivet/bench/internal/report"
	"trivet/bench/internal/rows"
	"trivet/bench/internal/systems"
)

func main() {
	systems.RunIfNode()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		stop()
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

// flags is the command line.
type flags struct {
	trivet, systems, rows, dir, out, docs, plots, from string
	cpuProfile, memProfile                             string
	port, rounds, failovers                            int
	warmup, measure                                    time.Duration
	quick                                              bool
}

func parse(args []string) (*flags, error) {
	f := &flags{}
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.StringVar(&f.trivet, "trivet", "../bin/trivet", "cmd/trivet, built")
	set.StringVar(&f.systems, "systems", "trivet,etcd,postgres,redis", "what to measure; one that is not installed is left out")
	set.StringVar(&f.rows, "rows", "", "a regular expression of the ids of rows to measure; all where it is empty")
	set.StringVar(&f.dir, "dir", "", "a folder for the servers' data, on the disk that is to be measured; a new one in the folder of temporary files where it is empty")
	set.StringVar(&f.out, "out", "../bench-report", "the folder of report.json, report.md and the plots")
	set.StringVar(&f.docs, "docs", "", "a document whose marked section is written anew, with plots in the folder -plots beside it")
	set.StringVar(&f.plots, "plots", "performance", "with -docs: the folder of the plots")
	set.StringVar(&f.from, "from", "", "a report.json to make the report of again, with nothing measured")
	set.IntVar(&f.port, "port", 0, "first port of the servers; 0: any that are free")
	set.StringVar(&f.cpuProfile, "cpuprofile", "", "a file for a CPU profile of the load generator with the clients in it")
	set.StringVar(&f.memProfile, "memprofile", "", "a file for an allocation profile of the same")
	set.BoolVar(&f.quick, "quick", false, "minutes instead of hours: fewer keys, one short round")
	set.IntVar(&f.rounds, "rounds", 0, "rounds, instead of the plan's")
	set.IntVar(&f.failovers, "failovers", 0, "kills for each way, instead of the plan's")
	set.DurationVar(&f.warmup, "warmup", 0, "warming up of each closed loop, instead of the plan's")
	set.DurationVar(&f.measure, "measure", 0, "measured time of each closed loop, instead of the plan's")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case set.NArg() > 0:
		return nil, fmt.Errorf("unknown argument %q", set.Arg(0))
	case f.rounds < 0 || f.failovers < 0 || f.warmup < 0 || f.measure < 0:
		return nil, errors.New("-rounds, -failovers, -warmup and -measure must not be negative")
	}
	return f, nil
}

// plan returns what is measured.
func (f *flags) plan() (rows.Plan, error) {
	p := rows.Full()
	if f.quick {
		p = rows.Quick()
	}
	if f.rounds > 0 {
		p.Rounds = f.rounds
	}
	if f.failovers > 0 {
		p.Failovers = f.failovers
	}
	if f.warmup > 0 {
		p.Warmup = f.warmup
	}
	if f.measure > 0 {
		p.Measure = f.measure
	}
	if f.rows != "" {
		var err error
		if p.Rows, err = regexp.Compile("^(?:" + f.rows + ")$"); err != nil {
			return p, fmt.Errorf("-rows: %w", err)
		}
		if len(rows.List(p)) == 0 {
			return p, fmt.Errorf("-rows %s matches no row", f.rows)
		}
	}
	return p, nil
}

func run(ctx context.Context, args []string) error {
	f, err := parse(args)
	if err != nil {
		return err
	}
	if f.from != "" {
		d, err := report.Read(f.from)
		if err != nil {
			return err
		}
		return f.write(d)
	}
	endProfiles, err := f.startProfiles()
	if err != nil {
		return err
	}
	d, err := f.measureAll(ctx)
	if err = errors.Join(err, endProfiles()); err != nil {
		return err
	}
	fmt.Println(d.Table())
	fmt.Println(d.Targets())
	fmt.Print(d.Failures())
	return f.write(d)
}

// measureAll runs the plan. What was measured until then is in report.json whenever
// it ends.
func (f *flags) measureAll(ctx context.Context) (*report.Data, error) {
	plan, err := f.plan()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(f.out, 0o755); err != nil {
		return nil, err
	}
	dir := f.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "trivet-bench"); err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
	}
	// PostgreSQL runs as another user where this is root's.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if f.trivet, err = filepath.Abs(f.trivet); err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}

	d := &report.Data{Began: time.Now(), Quick: f.quick, Plan: plan, Rows: rows.List(plan), Versions: map[string]string{}, LeftOut: map[string]string{}}
	if d.Machine, err = machine(dir); err != nil {
		return nil, err
	}
	chosen, err := f.choose(ctx, d)
	if err != nil {
		return nil, err
	}
	var failed error // to write what was measured
	r := rows.Runner{
		Plan: plan, Systems: chosen, Dir: dir, Port: systems.Ports(f.port), Log: log.Printf,
		Result: func(result rows.Result) {
			d.Results, d.Took = append(d.Results, result), time.Since(d.Began)
			if err := d.Write(filepath.Join(f.out, "report.json")); err != nil && failed == nil {
				failed = err
			}
		},
	}
	if err := r.Run(ctx); err != nil {
		return nil, fmt.Errorf("%w; what was measured is in %s", err, filepath.Join(f.out, "report.json"))
	}
	return d, failed
}

// choose returns the systems that are asked for and installed, and notes the rest.
func (f *flags) choose(ctx context.Context, d *report.Data) ([]systems.System, error) {
	asked := strings.Split(f.systems, ",")
	var chosen []systems.System
	for _, s := range systems.All(f.trivet) {
		at := slices.Index(asked, s.Name())
		if at < 0 {
			d.LeftOut[s.Name()] = "not asked for"
			continue
		}
		asked = slices.Delete(asked, at, at+1)
		version, err := s.Version(ctx)
		if err != nil {
			if s.Name() == "trivet" || s.Name() == rows.BaseSystem {
				return nil, fmt.Errorf("%s: %w", s.Name(), err)
			}
			log.Printf("LEFT OUT: %s: %v", s.Name(), err)
			d.LeftOut[s.Name()] = err.Error()
			continue
		}
		d.Versions[s.Name()] = version
		chosen = append(chosen, s)
	}
	if len(asked) > 0 {
		return nil, fmt.Errorf("-systems: there is no %q", asked[0])
	}
	return chosen, nil
}

// write writes the report and the plots and, where it is asked for, the document.
func (f *flags) write(d *report.Data) error {
	if err := d.WritePlots(f.out); err != nil {
		return err
	}
	text := filepath.Join(f.out, "report.md")
	if err := os.WriteFile(text, []byte("# Side by side\n\n"+d.Markdown("")), 0o644); err != nil {
		return err
	}
	log.Printf("report: %s", text)
	if f.docs == "" {
		return nil
	}
	if err := report.WriteSection(f.docs, d.Markdown(f.plots)); err != nil {
		return err
	}
	return d.WritePlots(filepath.Join(filepath.Dir(f.docs), f.plots))
}
