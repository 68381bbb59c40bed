package webhook_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/webhook"
)

// A posting is what the verifier of an application is given.
type posting struct {
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	Holds   bool              `json:"-"`
	Name    string            `json:"-"`
}

// postings are a good one of each kind, and what is forged.
func postings(t *testing.T) (all []posting) {
	const mine, before, foreign = "whsec_bWFpbGdyYW50IG1haWxncmFudCBtYWlsZ3JhbnQ=", "whsec_YmVmb3JlIGJlZm9yZSBiZWZvcmUgYmVmb3JlIGJlZm9y", "whsec_Zm9yZWlnbiBmb3JlaWduIGZvcmVpZ24gZm9yZWlnbg=="
	body := "{\"type\":\"arrival.new\",\"data\":{\"subject\":\"arr_1\",\"n\":\"größer\"}}"
	add := func(name string, holds bool, at time.Time, change func(*posting), secrets ...string) {
		var sealed []mailgrant.Secret
		for _, s := range secrets {
			sealed = append(sealed, mailgrant.NewSecret(s))
		}
		h := http.Header{}
		must(t, webhook.Sign(h, mailgrant.NewID(mailgrant.PrefixDelivery), at, []byte(body), sealed...))
		p := posting{Secret: mine, Headers: map[string]string{}, Body: body, Holds: holds, Name: name}
		for k, v := range h {
			p.Headers[strings.ToLower(k)] = v[0]
		}
		if change != nil {
			change(&p)
		}
		all = append(all, p)
	}
	now := time.Now()
	add("good", true, now, nil, mine)
	add("good, with two secrets", true, now, nil, before, mine)
	add("good, and a minute old", true, now.Add(-time.Minute), nil, mine)
	add("altered body", false, now, func(p *posting) { p.Body = strings.Replace(p.Body, "arr_1", "arr_2", 1) }, mine)
	add("altered id", false, now, func(p *posting) { p.Headers["webhook-id"] = "dlv_other" }, mine)
	add("altered time", false, now, func(p *posting) { p.Headers["webhook-timestamp"] = strconv.FormatInt(now.Unix()+1, 10) }, mine)
	add("old", false, now.Add(-6*time.Minute), nil, mine)
	add("of the future", false, now.Add(6*time.Minute), nil, mine)
	add("another's secret", false, now, nil, foreign)
	add("no signature", false, now, func(p *posting) { delete(p.Headers, "webhook-signature") }, mine)
	add("an empty signature", false, now, func(p *posting) { p.Headers["webhook-signature"] = "" }, mine)
	add("half a signature", false, now, func(p *posting) { p.Headers["webhook-signature"] = p.Headers["webhook-signature"][:20] }, mine)
	add("no time", false, now, func(p *posting) { delete(p.Headers, "webhook-timestamp") }, mine)
	add("no id", false, now, func(p *posting) { delete(p.Headers, "webhook-id") }, mine)
	add("a time that is none", false, now, func(p *posting) { p.Headers["webhook-timestamp"] = "now" }, mine)
	return all
}

// The verifiers of docs/webhooks.md, each with what asks it about lines of JSON.
var verifiers = map[string]struct {
	file, code, ask string
	run             []string
}{
	"go": {"verify.go", "go", `package main

import ("bufio"; "encoding/json"; "fmt"; "net/http"; "os")

func main() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var p struct { Secret string; Headers map[string]string; Body string }
		if err := json.Unmarshal(in.Bytes(), &p); err != nil { panic(err) }
		h := http.Header{}
		for k, v := range p.Headers { h.Set(k, v) }
		fmt.Println(verify(p.Secret, h, []byte(p.Body)))
	}
}
`, []string{"go", "run", "verify.go", "ask.go"}},
	"python": {"verify.py", "python", `import json, sys
from verify import verify

for line in sys.stdin:
    p = json.loads(line)
    print(str(verify(p["secret"], p["headers"], p["body"].encode())).lower())
`, []string{"python3", "ask.py"}},
	"node": {"verify.mjs", "js", `import { verify } from './verify.mjs'
import { readFileSync } from 'node:fs'

for (const line of readFileSync(0, 'utf8').trim().split('\n')) {
  const p = JSON.parse(line)
  console.log(verify(p.secret, p.headers, Buffer.from(p.body)))
}
`, []string{"node", "ask.mjs"}},
}

// What docs/webhooks.md shows takes what mailgrant posts, and refuses what is forged.
func TestEG05VerifiersOfTheDocuments(t *testing.T) {
	text, err := os.ReadFile("../../docs/webhooks.md")
	must(t, err)
	for name, v := range verifiers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := regexp.MustCompile("(?s)```" + v.code + "\n(.*?)```").FindSubmatch(text)
			if m == nil {
				t.Fatal("the document has none")
			}
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, v.file), m[1], 0o600))
			must(t, os.WriteFile(filepath.Join(dir, "ask"+filepath.Ext(v.file)), []byte(v.ask), 0o600))
			var in, wrong bytes.Buffer
			all := postings(t)
			for _, p := range all {
				must(t, json.NewEncoder(&in).Encode(p))
			}
			c := exec.Command(v.run[0], v.run[1:]...)
			c.Dir, c.Stdin, c.Stderr = dir, &in, &wrong
			out, err := c.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, &wrong)
			}
			said := strings.Fields(string(out))
			if len(said) != len(all) {
				t.Fatalf("%d answers to %d: %s", len(said), len(all), out)
			}
			for i, p := range all {
				if said[i] != strconv.FormatBool(p.Holds) {
					t.Errorf("%s: it says %s", p.Name, said[i])
				}
			}
		})
	}
}
