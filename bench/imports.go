package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ImportResult is what a first import came to.
type ImportResult struct {
	Messages int     `json:"messages"`
	Size     int     `json:"size"`
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"messages_s"`
	Before   Mem     `json:"before"`
	Peak     float64 `json:"peak_rss_mib"`
	CPU      float64 `json:"cpu_ms_message"`
}

// cmdImport fills one mailbox of the stub, lets the product read it, and counts
// what the product says it has taken, until that is all.
func cmdImport(args []string) error {
	fs := flag.NewFlagSet("import", flag.ExitOnError)
	user := fs.String("user", "import@rig.example.com", "mailbox to fill")
	n := fs.Int("n", 50_000, "messages")
	size := fs.Int("size", 10<<10, "bytes of a message")
	ctl := fs.String("ctl", "127.0.0.1:2900", "control API of the upstream")
	begin := fs.String("begin-url", "", "URL to call so that the product begins to read")
	body := fs.String("begin-body", "", "body of that call")
	method := fs.String("begin-method", "POST", "method of that call")
	count := fs.String("count-url", "", "URL whose JSON has the number of messages taken")
	field := fs.String("count-field", "count", "name of that number")
	within := fs.Duration("within", 3*time.Minute, "longest wait")
	pids := fs.String("pids", "", "the product's root process ids, comma-separated")
	var headers []string
	fs.Var(headerFlag{&headers}, "header", "header of both calls 'Name: value' (repeatable)")
	fs.Parse(args)
	var roots []int
	for _, p := range strings.Split(*pids, ",") {
		if v, err := strconv.Atoi(p); err == nil {
			roots = append(roots, v)
		}
	}
	var filled int
	if err := ctlGet(*ctl, "/imap/fill?user="+url.QueryEscape(*user)+"&n="+strconv.Itoa(*n)+"&size="+strconv.Itoa(*size), &filled); err != nil {
		return err
	}
	ask := func(method, u, body string) ([]byte, error) {
		req, err := http.NewRequest(method, u, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		for _, h := range headers {
			k, v, _ := strings.Cut(h, ":")
			req.Header.Set(k, strings.TrimSpace(v))
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode/100 != 2 {
			return nil, fmt.Errorf("%s %s: %s %.300s", method, u, res.Status, b)
		}
		return b, nil
	}
	r := ImportResult{Size: *size, Before: memOf(roots...)}
	c0, t0 := cpuOf(tree(roots...)), time.Now()
	if _, err := ask(*method, *begin, *body); err != nil {
		return err
	}
	for time.Since(t0) < *within {
		time.Sleep(100 * time.Millisecond)
		r.Peak = max(r.Peak, memOf(roots...).RSS)
		b, err := ask("GET", *count, "")
		if err != nil {
			return err
		}
		var v map[string]any
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		got, _ := v[*field].(float64)
		r.Messages = int(got)
		if r.Messages >= filled {
			break
		}
	}
	r.Seconds = round3(since(t0))
	r.Rate = round3(float64(r.Messages) / r.Seconds)
	if r.Messages > 0 {
		r.CPU = round3((cpuOf(tree(roots...)) - c0) * 1000 / float64(r.Messages))
	}
	if r.Messages < filled {
		emit(r)
		return fmt.Errorf("%d of %d messages were taken within %s", r.Messages, filled, *within)
	}
	return emit(r)
}
