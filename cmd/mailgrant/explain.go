package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
)

func newExplain(c *cli) *cobra.Command {
	var protocol string
	var facts []string
	var lines bool
	cmd := &cobra.Command{
		Use: "explain [TEXT…]", Short: "Say what an error text of a mail provider means, and what to do", Args: count(0, -1),
		Long: `Say what an error text of a mail provider means, and what to do. The text is read
from standard input when it is not an argument. No running mailgrant is needed, and
nothing leaves this machine.

With --jsonl every line of the input is a failure, {"id","text","protocol","context"},
and every line of the output its explanation,
{"id","cause","title","remedy","who","retry","confidence"}.`,
		Example: `  mailgrant explain "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox."
  mailgrant explain --protocol smtp --context token.aud=https://graph.microsoft.com "535 5.7.3 Authentication unsuccessful"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if lines {
				if len(args) > 0 {
					return wrong(cmd, "--jsonl reads standard input, not arguments")
				}
				return explainLines(cmd.InOrStdin(), cmd.OutOrStdout())
			}
			context, err := contextOf(cmd, facts)
			if err != nil {
				return err
			}
			text := strings.Join(args, " ")
			if len(args) == 0 {
				b, err := io.ReadAll(cmd.InOrStdin())
				if err != nil {
					return unreadable(err)
				}
				text = string(b)
			}
			if strings.TrimSpace(text) == "" {
				return wrong(cmd, "there is no text to explain")
			}
			f := diagnose.Explain(diagnose.Failure{Text: text, Protocol: protocol, Context: context})
			return c.show(cmd, f, func(p *printer) { p.explained(f) })
		},
	}
	cmd.Flags().StringVar(&protocol, "protocol", "", "where it was said (`protocol`): oauth, smtp, imap, pop, graph, oidc, network")
	cmd.Flags().StringArrayVar(&facts, "context", nil, "a fact, `name=value`: mailbox=…, token.aud=…; again for more")
	cmd.Flags().BoolVar(&lines, "jsonl", false, "many at once: lines of JSON in, lines of JSON out")
	return cmd
}

func (p *printer) explained(f mailgrant.Finding) {
	p.line("%s (%s)", f.Title, f.Cause)
	p.finding(&f, "")
	if f.Confidence < 1 {
		p.line("Sure: %d %%", int(f.Confidence*100+0.5))
	}
}

// contextOf reads facts: a.b=v is an entry of an entry, and a value that is JSON
// but no text is taken as such.
func contextOf(cmd *cobra.Command, facts []string) (map[string]any, error) {
	if len(facts) == 0 {
		return nil, nil
	}
	m := map[string]any{}
	for _, f := range facts {
		name, text, ok := strings.Cut(f, "=")
		if !ok || name == "" {
			return nil, wrong(cmd, "--context %q is not name=value", f)
		}
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil || value == nil {
			value = text
		}
		at, path := m, strings.Split(name, ".")
		for _, key := range path[:len(path)-1] {
			next, ok := at[key].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[key] = next
			}
			at = next
		}
		at[path[len(path)-1]] = value
	}
	return m, nil
}

// A line of explain --jsonl, as it comes. The id goes back as it came.
type asked struct {
	ID       json.RawMessage `json:"id"`
	Text     string          `json:"text"`
	Protocol string          `json:"protocol"`
	Context  map[string]any  `json:"context"`
}

// explained is a line of explain --jsonl, as it goes.
type explained struct {
	ID         json.RawMessage `json:"id,omitempty"`
	Cause      string          `json:"cause"`
	Title      string          `json:"title"`
	Remedy     string          `json:"remedy"`
	Who        mailgrant.Who   `json:"who"`
	Retry      mailgrant.Retry `json:"retry"`
	Confidence float64         `json:"confidence"`
}

// lineMax bounds one line of input.
const lineMax = 16 << 20

// explainLines answers line by line, in their order, with all processors.
func explainLines(r io.Reader, w io.Writer) error {
	type job struct {
		line   []byte
		n      int
		answer chan any // an explained, or an error
	}
	queue := make(chan job, 4*runtime.GOMAXPROCS(0))
	work, stop := make(chan job), make(chan struct{})
	defer close(stop)
	for range runtime.GOMAXPROCS(0) {
		go func() {
			for j := range work {
				j.answer <- explainLine(j.line, j.n)
			}
		}()
	}
	var broken error
	go func() {
		defer close(queue)
		defer close(work)
		in := bufio.NewScanner(r)
		in.Buffer(make([]byte, 64<<10), lineMax)
		for n := 1; in.Scan(); n++ {
			if len(bytes.TrimSpace(in.Bytes())) == 0 {
				continue
			}
			j := job{bytes.Clone(in.Bytes()), n, make(chan any, 1)}
			select {
			case queue <- j:
			case <-stop:
				return
			}
			work <- j
		}
		broken = in.Err()
	}()
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for j := range queue {
		switch a := (<-j.answer).(type) {
		case error:
			return errors.Join(out.Flush(), a)
		default:
			if err := enc.Encode(a); err != nil {
				return err
			}
		}
		if len(queue) == 0 { // whoever waits for an answer gets it
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
	if broken != nil {
		return errors.Join(out.Flush(), unreadable(broken))
	}
	return out.Flush()
}

func explainLine(line []byte, n int) any {
	var q asked
	if err := json.Unmarshal(line, &q); err != nil {
		return mailgrant.Errorf(mailgrant.Invalid, err, "line %d is not a failure: %v", n, err).
			Fix(`write it as {"id": "1", "text": "…", "protocol": "smtp", "context": {}}`).At("line " + strconv.Itoa(n))
	}
	f := diagnose.Explain(diagnose.Failure{Text: q.Text, Protocol: q.Protocol, Context: q.Context})
	return explained{q.ID, f.Cause, f.Title, f.Remedy, f.Who, f.Retry, f.Confidence}
}
