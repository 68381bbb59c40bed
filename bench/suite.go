package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Target describes one product to the suite. Commands run in sh with WORK (the
// target's private folder), CERTS and the -var settings in the environment.
type Target struct {
	Name      string            `json:"name"`
	Note      string            `json:"note"`
	Prepare   string            `json:"prepare"` // lay out a fresh private state; not run after a kill
	Start     string            `json:"start"`   // foreground command, use exec (empty: nothing to start)
	Aux       []string          `json:"aux"`     // further processes that the product needs (database), started first
	Setup     string            `json:"setup"`   // once after the first start: accounts and the like
	Env       map[string]string `json:"env"`
	Submit    Submit            `json:"submit"`
	Idle      *Idle             `json:"idle"`
	IdleSizes []int             `json:"idle_sizes"`
	Skip      []string          `json:"skip"` // scenarios that do not apply

	dir   string
	procs []*exec.Cmd
}

// Submit says how mail goes in.
type Submit struct {
	Kind    string   `json:"kind"` // smtp or rest
	Addr    string   `json:"addr"`
	User    string   `json:"user"`
	Pass    string   `json:"pass"`
	Secret  string   `json:"secret"` // a file below WORK that holds the password or key, made by prepare or setup
	TLS     string   `json:"tls"`
	From    string   `json:"from"`
	URL     string   `json:"url"`
	Body    string   `json:"body"`
	Headers []string `json:"headers"`
	Large   string   `json:"large_body"` // of the large scenario; empty: the same body
	PerConn int      `json:"per_conn"`   // messages per connection, for a product that cannot take several
	LargeMB int      `json:"large_mb"`   // size of the large scenario, for a product with a lower cap
}

type suite struct {
	work, certs, ctl string
	vars             []string
	up               *exec.Cmd
	span             time.Duration
	maxMsgs          int
	conns            []int
	size, largeMB    int
	latN, killN      int
	quietPct         float64
	quietMax         time.Duration
	scenarios        []string
	results          []*Row
	runSeq           int
}

// Row is one measurement of one target.
type Row struct {
	Target   string      `json:"target"`
	Scenario string      `json:"scenario"`
	Repeat   int         `json:"repeat"`
	Quiet    float64     `json:"others_cpu_pct_before"`
	Load     *LoadResult `json:"load,omitempty"`
	Usage    *Usage      `json:"usage,omitempty"`
	Mem      *Mem        `json:"memory,omitempty"`
	Idle     *IdleResult `json:"idle,omitempty"`
	ColdMS   float64     `json:"cold_ms,omitempty"`
	Syncs    *SyncCount  `json:"syncs,omitempty"`
	Error    string      `json:"error,omitempty"`
}

// SyncCount is how often a product forced data to disk, by strace.
type SyncCount struct {
	Messages int            `json:"messages"`
	Calls    map[string]int `json:"calls"`
	PerMsg   float64        `json:"per_message"`
	// By how much the accept latency p50 grows when every such call takes 100 ms longer.
	AcceptGrowth float64 `json:"accept_growth_ms"`
}

func cmdSuite(args []string) error {
	fs := flag.NewFlagSet("suite", flag.ExitOnError)
	s := &suite{}
	var conns, scen string
	fs.StringVar(&s.work, "work", "bench-work", "private folder for the targets' state and logs")
	rep := fs.Int("repeat", 3, "repeats, interleaved over the targets")
	out := fs.String("out", "results.json", "result file (JSON); rows of an existing one are kept")
	fs.Var(headerFlag{&s.vars}, "var", "NAME=value for the targets' commands (repeatable)")
	fs.StringVar(&conns, "conns", "1,8,32", "connection counts of the rate scenario")
	fs.StringVar(&scen, "scenarios", "cold,memory,latency,rate,large,kill", "which to run; also: sync (needs strace), idle")
	fs.DurationVar(&s.span, "span", 8*time.Second, "accept time of one rate run")
	fs.IntVar(&s.maxMsgs, "max", 20000, "most messages of one rate run")
	fs.IntVar(&s.size, "size", 10240, "body size")
	fs.IntVar(&s.largeMB, "large", 20, "body size of the large scenario, MiB")
	fs.IntVar(&s.latN, "latency-n", 100, "messages of the latency scenario")
	fs.IntVar(&s.killN, "kill-n", 2000, "messages of the kill scenario")
	fs.Float64Var(&s.quietPct, "quiet", 15, "wait until others use less than this per cent of the machine")
	fs.DurationVar(&s.quietMax, "quiet-max", 60*time.Second, "longest such wait")
	only := fs.String("only", "", "comma-separated target names")
	fs.Parse(args)
	if fs.NArg() == 0 {
		return fmt.Errorf("name the target files (JSON)")
	}
	for _, c := range strings.Split(conns, ",") {
		n := 0
		fmt.Sscan(c, &n)
		s.conns = append(s.conns, n)
	}
	s.scenarios = strings.Split(scen, ",")
	var err error
	if s.work, err = filepath.Abs(s.work); err != nil {
		return err
	}
	s.certs, s.ctl = filepath.Join(s.work, "certs"), "127.0.0.1:2900"
	if err := writeCerts(s.certs); err != nil {
		return err
	}
	if b, err := os.ReadFile(*out); err == nil {
		if err := json.Unmarshal(b, &s.results); err != nil {
			return err
		}
	}
	var targets []*Target
	for _, f := range fs.Args() {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		t := &Target{}
		if err := json.Unmarshal(b, t); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		if *only != "" && !slices.Contains(strings.Split(*only, ","), t.Name) {
			continue
		}
		t.dir = filepath.Join(s.work, t.Name)
		targets = append(targets, t)
	}
	if err := s.startUpstream(); err != nil {
		return err
	}
	cleanup := sync.OnceFunc(func() {
		for _, t := range targets {
			t.stop(syscall.SIGKILL)
		}
		s.up.Process.Signal(syscall.SIGTERM)
		s.up.Wait()
	})
	defer cleanup()
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-sig
		cleanup()
		os.Exit(130)
	}()
	for r := range *rep {
		for i := range targets {
			t := targets[(i+r)%len(targets)] // a different order each time
			if err := s.one(t, r+1); err != nil {
				s.add(&Row{Target: t.Name, Scenario: "error", Repeat: r + 1, Error: err.Error()})
				fmt.Fprintf(os.Stderr, "%s: %v\n", t.Name, err)
			}
			t.stop(syscall.SIGTERM)
			b, _ := json.MarshalIndent(s.results, "", " ")
			if err := os.WriteFile(*out, b, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *suite) startUpstream() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	s.up = exec.Command(exe, "upstream", "-certs", s.certs, "-ctl", s.ctl)
	s.up.Stderr = os.Stderr
	if err := s.up.Start(); err != nil {
		return err
	}
	for range 100 {
		if ctlGet(s.ctl, "/stats", nil) == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("upstream did not start")
}

func (s *suite) add(r *Row) {
	s.results = append(s.results, r)
	line := fmt.Sprintf("%-22s %-14s #%d", r.Target, r.Scenario, r.Repeat)
	switch {
	case r.Error != "":
		line += "  ERROR " + r.Error
	case r.Idle != nil:
		line += fmt.Sprintf("  %d/%d mailboxes, %.1f KiB RSS each, event p50 %.2f p99 %.2f ms, lost %d", r.Idle.Ready, r.Idle.Mailboxes,
			r.Idle.RSSPerBoxKB, r.Idle.Latency.P50, r.Idle.Latency.P99, r.Idle.Lost)
	case r.Syncs != nil:
		line += fmt.Sprintf("  %.2f syncs a message %v, accept p50 grows by %.0f ms with syncs 100 ms slower", r.Syncs.PerMsg, r.Syncs.Calls, r.Syncs.AcceptGrowth)
	case r.ColdMS > 0:
		line += fmt.Sprintf("  first delivery after %.0f ms", r.ColdMS)
	case r.Mem != nil:
		line += fmt.Sprintf("  idle RSS %.1f PSS %.1f MiB, %d processes", r.Mem.RSS, r.Mem.PSS, r.Mem.Procs)
	case r.Load != nil:
		o := r.Load.Outcome
		line += fmt.Sprintf("  accepted %d at %.0f/s (p50 %.2f p99 %.2f ms), delivered %.0f/s, e2e p50 %.2f p99 %.2f ms, lost %d dup %d bad %d rej %d",
			r.Load.Accepted, r.Load.AcceptRate, r.Load.Accept.P50, r.Load.Accept.P99, o.Rate, o.Latency.P50, o.Latency.P99, o.Lost, o.Duplicates, o.Corrupt, r.Load.Rejected)
		if r.Load.FirstError != "" {
			line += " (" + r.Load.FirstError + ")"
		}
	}
	if r.Usage != nil {
		line += fmt.Sprintf("  cpu %.2fs rss %.0f MiB foreign %.0f%%", r.Usage.CPU, r.Usage.Peak.RSS, r.Usage.ForeignPct)
	}
	fmt.Fprintln(os.Stderr, line)
}

func (s *suite) want(t *Target, name string) bool {
	return slices.Contains(s.scenarios, name) && !slices.Contains(t.Skip, name)
}

func (s *suite) env(t *Target) []string {
	e := append(os.Environ(), "WORK="+t.dir, "CERTS="+s.certs, "CTL="+s.ctl)
	for k, v := range t.Env {
		e = append(e, k+"="+os.Expand(v, func(n string) string {
			switch n {
			case "WORK":
				return t.dir
			case "CERTS":
				return s.certs
			}
			for _, kv := range s.vars {
				if a, b, _ := strings.Cut(kv, "="); a == n {
					return b
				}
			}
			return os.Getenv(n)
		}))
	}
	return append(e, s.vars...)
}

func (s *suite) shell(t *Target, script string) error {
	if script == "" {
		return nil
	}
	c := exec.Command("sh", "-ec", script)
	c.Dir, c.Env = t.dir, s.env(t)
	if b, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, b)
	}
	return nil
}

func (s *suite) start(t *Target) error {
	logf, err := os.OpenFile(t.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer logf.Close()
	for _, line := range append(append([]string{}, t.Aux...), t.Start) {
		if line == "" {
			continue
		}
		c := exec.Command("sh", "-c", line)
		c.Dir, c.Env, c.Stdout, c.Stderr = t.dir, s.env(t), logf, logf
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := c.Start(); err != nil {
			return err
		}
		t.procs = append(t.procs, c)
	}
	return nil
}

func (t *Target) pids() (p []int) {
	for _, c := range t.procs {
		p = append(p, c.Process.Pid)
	}
	return p
}

// stop ends the target's processes by id: the started ones get the signal (last
// started first), what is left of the tree after 10 s is killed. SIGKILL hits
// the whole tree at once.
func (t *Target) stop(sig syscall.Signal) {
	all := tree(t.pids()...)
	if sig == syscall.SIGKILL {
		for _, p := range all {
			syscall.Kill(p.pid, sig)
		}
	}
	for _, c := range slices.Backward(t.procs) {
		c.Process.Signal(sig)
		done := make(chan struct{})
		go func() { c.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			c.Process.Kill()
			<-done
		}
	}
	t.procs = nil
	for _, p := range all { // orphans
		if _, alive := readStat(p.pid); alive {
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
}

// submit is the target's way in, with the secret that its setup has made: as the
// password, and in place of {{SECRET}} in the headers.
func (t *Target) submit() Submit {
	u := t.Submit
	if u.Secret == "" {
		return u
	}
	b, err := os.ReadFile(filepath.Join(t.dir, u.Secret))
	if err != nil {
		return u // the login fails and says so
	}
	u.Pass = strings.TrimSpace(string(b))
	u.Headers = slices.Clone(u.Headers)
	for i, h := range u.Headers {
		u.Headers[i] = strings.ReplaceAll(h, "{{SECRET}}", u.Pass)
	}
	return u
}

func (s *suite) load(t *Target, name string) (*SMTPLoad, *RESTLoad) {
	s.runSeq++
	run := fmt.Sprintf("%s-%d-%d", strings.ReplaceAll(name, " ", ""), s.runSeq, os.Getpid())
	u := t.submit()
	from := u.From
	if from == "" {
		from = "app@rig.example.com"
	}
	if name == "large" && u.Large != "" {
		u.Body = u.Large
	}
	if u.Kind == "rest" {
		return nil, &RESTLoad{Method: "POST", URL: u.URL, Body: u.Body, CT: "application/json", Headers: u.Headers, From: from,
			To: "user@rcpt.example.com", Conns: 1, Msgs: 1, Size: s.size, Ctl: s.ctl, Run: run, Wait: 2 * time.Minute, Quiet: 20 * time.Second, CertDir: s.certs}
	}
	return &SMTPLoad{Addr: u.Addr, User: u.User, Pass: u.Pass, TLS: u.TLS, From: from, To: "user@rcpt.example.com",
		PerConn: u.PerConn, Conns: 1, Msgs: 1, Size: s.size, Ctl: s.ctl, Run: run, Wait: 2 * time.Minute, Quiet: 20 * time.Second, CertDir: s.certs}, nil
}

// first sends one message as soon as the target takes it and returns when the
// sink had it (ns since the epoch).
func (s *suite) first(t *Target, limit time.Duration) (int64, error) {
	var last string
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(3 * time.Millisecond) {
		var r *LoadResult
		sl, rl := s.load(t, "first")
		run := ""
		if sl != nil {
			run, sl.Ctl, sl.StopOnError, sl.Size = sl.Run, "", true, 1024
			r = sl.run()
		} else {
			run, rl.Ctl, rl.Size = rl.Run, "", 1024
			r, _ = rl.run()
		}
		if r.Accepted == 1 {
			ctlWait(s.ctl, run, 1, limit, 0)
			var ds []Delivery
			ctlGet(s.ctl, "/report?run="+url.QueryEscape(run), &ds)
			if len(ds) == 0 {
				return 0, fmt.Errorf("first message accepted, never delivered")
			}
			return ds[0].Recv, nil
		}
		last = r.FirstError
	}
	return 0, fmt.Errorf("no mail accepted in %v: %s", limit, last)
}

func (s *suite) fresh(t *Target) error {
	if err := os.RemoveAll(t.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return err
	}
	if err := s.shell(t, t.Prepare); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := s.start(t); err != nil {
		return err
	}
	if err := s.shell(t, t.Setup); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	if t.Submit.Addr == "" && t.Submit.URL == "" {
		return nil
	}
	_, err := s.first(t, 60*time.Second)
	return err
}

func (s *suite) set(k, v string) { ctlGet(s.ctl, "/set?"+k+"="+v, nil) }

// one runs all wanted scenarios of a target once.
func (s *suite) one(t *Target, rep int) error {
	row := func(sc string) *Row {
		return &Row{Target: t.Name, Scenario: sc, Repeat: rep, Quiet: quiet(s.quietPct, s.quietMax)}
	}
	own := []int{ownPID()}
	s.set("delay", "0s")
	submits := t.Submit.Addr != "" || t.Submit.URL != ""
	if submits {
		if err := s.fresh(t); err != nil {
			return err
		}
	}
	if s.want(t, "cold") && t.Start != "" && submits {
		t.stop(syscall.SIGTERM)
		r := row("cold")
		t0 := time.Now().UnixNano()
		if err := s.start(t); err != nil {
			return err
		}
		at, err := s.first(t, 60*time.Second)
		if err != nil {
			return err
		}
		r.ColdMS = ms(at - t0)
		s.add(r)
	}
	if s.want(t, "memory") && t.Start != "" && submits {
		time.Sleep(4 * time.Second)
		r := row("memory")
		m := memOf(t.pids()...)
		r.Mem = &m
		s.add(r)
	}
	// The rig's own tree holds the stub; the target's processes are its children too, so they are subtracted.
	measured := func(sc string, f func() (*LoadResult, error)) {
		r := row(sc)
		w := watch(t.pids(), own, 50*time.Millisecond)
		l, err := f()
		u := w.end()
		u.RigCPU = round3(u.RigCPU - u.CPU)
		u.ForeignPct = w.foreign(u.RigCPU + u.CPU)
		r.Load, r.Usage = l, &u
		if err != nil {
			r.Error = err.Error()
		}
		s.add(r)
	}
	if s.want(t, "latency") && submits {
		for _, per := range []int{0, 1} {
			name := "latency"
			if per == 1 {
				name = "latency-fresh" // connects anew for each message, as most applications do
			}
			sl, rl := s.load(t, name)
			if sl != nil {
				if per != 1 && sl.PerConn == 1 {
					continue
				}
				sl.Msgs, sl.Serial, sl.PerConn = s.latN, true, per
				stop := make(chan struct{})
				sl.Stop = stop
				tm := time.AfterFunc(15*time.Second, func() { close(stop) })
				defer tm.Stop()
				measured(name, func() (*LoadResult, error) { return sl.run(), nil })
			} else if per == 0 {
				rl.Msgs, rl.Serial = s.latN, true
				measured(name, rl.run)
			}
		}
	}
	if s.want(t, "rate") && submits {
		for _, c := range s.conns {
			name := fmt.Sprintf("rate-%d", c)
			sl, rl := s.load(t, name)
			if sl != nil {
				sl.Conns, sl.Msgs, sl.Span, sl.Preconnect = c, s.maxMsgs, s.span, true
				measured(name, func() (*LoadResult, error) { return sl.run(), nil })
			} else {
				rl.Conns, rl.Msgs, rl.Span = c, s.maxMsgs, s.span
				measured(name, rl.run)
			}
		}
	}
	if s.want(t, "sync") && t.Start != "" && submits {
		r := row("sync")
		n, err := s.syncs(t)
		r.Syncs = n
		if err != nil {
			r.Error = err.Error()
		}
		s.add(r)
	}
	if s.want(t, "large") && submits {
		if t.Start != "" { // a fresh process, so that the peak is the large message's
			t.stop(syscall.SIGTERM)
			if err := s.fresh(t); err != nil {
				return err
			}
			time.Sleep(2 * time.Second)
		}
		mb := s.largeMB
		if t.Submit.LargeMB > 0 {
			mb = t.Submit.LargeMB
		}
		name := fmt.Sprintf("large-%dMiB", mb)
		sl, rl := s.load(t, "large")
		if sl != nil {
			sl.Msgs, sl.Serial, sl.Size = 5, true, mb<<20
			measured(name, func() (*LoadResult, error) { return sl.run(), nil })
		} else {
			rl.Msgs, rl.Serial, rl.Size = 5, true, mb<<20
			measured(name, rl.run)
		}
	}
	if s.want(t, "kill") && t.Start != "" && submits {
		t.stop(syscall.SIGTERM)
		if err := s.fresh(t); err != nil {
			return err
		}
		r := row("kill")
		var err error
		r.Load, err = s.kill(t)
		if err != nil {
			r.Error = err.Error()
		}
		s.add(r)
	}
	if s.want(t, "idle") && t.Idle != nil {
		for _, n := range t.IdleSizes {
			t.stop(syscall.SIGTERM)
			if err := s.fresh(t); err != nil {
				return err
			}
			time.Sleep(2 * time.Second)
			r := row(fmt.Sprintf("idle-%d", n))
			d := *t.Idle
			d.N, d.Ctl, d.PID, d.Burst, d.CertDir = n, s.ctl, t.pids(), true, s.certs
			d.defaults()
			var err error
			if r.Idle, err = d.run(); err != nil {
				r.Error = err.Error()
			}
			s.add(r)
		}
	}
	return nil
}

// kill ends the product with SIGKILL while mail flows and a backlog stands, starts
// it again and compares what was accepted with what arrives in the end.
func (s *suite) kill(t *Target) (*LoadResult, error) {
	s.set("delay", "30ms")
	defer s.set("delay", "0s")
	sl, rl := s.load(t, "kill")
	if sl == nil {
		return nil, fmt.Errorf("kill scenario needs SMTP submission (REST: %s)", rl.URL)
	}
	sl.Conns, sl.Msgs, sl.Ctl, sl.StopOnError = 8, s.killN, "", false
	stop := make(chan struct{})
	sl.Stop = stop
	done := make(chan *LoadResult)
	go func() { done <- sl.run() }()
	for end := time.Now().Add(30 * time.Second); sl.acceptedNow.Load() < int64(s.killN/2) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	t.stop(syscall.SIGKILL)
	close(stop)
	res := <-done
	time.Sleep(300 * time.Millisecond)
	if err := s.start(t); err != nil {
		return res, err
	}
	if _, err := s.first(t, 60*time.Second); err != nil {
		return res, err
	}
	ctlWait(s.ctl, res.Run, res.Accepted, 90*time.Second, 30*time.Second)
	time.Sleep(2 * time.Second) // late duplicates
	res.collect(s.ctl)
	return res, nil
}

// syncs counts the calls that force data to disk over messages sent one at a time.
// Then each such call is held up by 100 ms: if the accept latency grows by as much,
// the product really waits for the disk before its 250.
func (s *suite) syncs(t *Target) (*SyncCount, error) {
	const calls = "fsync,fdatasync,sync_file_range,msync,sync,syncfs"
	out := t.dir + ".strace"
	traced := func(n int, opts ...string) (*LoadResult, error) {
		args := append([]string{"-f", "-qq", "-o", out}, opts...)
		for _, p := range tree(t.pids()...) {
			args = append(args, "-p", fmt.Sprint(p.pid))
		}
		c := exec.Command("strace", args...)
		if err := c.Start(); err != nil {
			return nil, err
		}
		time.Sleep(time.Second)
		var r *LoadResult
		var err error
		if sl, rl := s.load(t, "sync"); sl != nil {
			sl.Msgs, sl.Serial = n, true
			r = sl.run()
		} else {
			rl.Msgs, rl.Serial = n, true
			r, err = rl.run()
		}
		time.Sleep(1500 * time.Millisecond)
		c.Process.Signal(syscall.SIGINT)
		c.Wait()
		return r, err
	}
	const n = 20
	base, err := traced(n, "-e", "trace="+calls)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	sc := &SyncCount{Messages: n, Calls: map[string]int{}}
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) > 1 && !strings.Contains(l, "resumed>") {
			if name, _, ok := strings.Cut(f[1], "("); ok {
				sc.Calls[name]++
				sc.PerMsg++
			}
		}
	}
	sc.PerMsg = round3(sc.PerMsg / n)
	r, err := traced(10, "-e", "trace="+calls, "-e", "inject="+calls+":delay_enter=100000")
	if r != nil {
		sc.AcceptGrowth = round3(r.Accept.P50 - base.Accept.P50)
	}
	return sc, err
}
