package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newApply(c *cli) *cobra.Command {
	var file string
	var dry bool
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Make registrations, mailboxes, apps and webhooks what a text file says, and say what changed", Args: count(0, 0),
		Long: `Make registrations, mailboxes, apps and webhooks what a text file says, and say what changed,
setting by setting. What the file does not name stays as it is, nothing is deleted, and
applying the same file again changes nothing. Secrets do not stand in the file: it
names the environment variable or the file that holds them.

docs/apply.md describes the file; mailgrant export writes one.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return wrong(cmd, "name the file: -f FILE, or -f - for standard input")
			}
			in, _, err := openMessage(cmd, file)
			if err != nil {
				return err
			}
			defer in.Close()
			want, err := readWanted(in)
			if err != nil {
				return err
			}
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			p, err := newPlan(cmd.Context(), cl, want, filepath.Dir(file))
			if err != nil {
				return err
			}
			return p.apply(cmd, c, dry)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the `file`; - for standard input")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would change")
	return cmd
}

// What becomes of a thing.
const (
	actAdded     = "added"
	actChanged   = "changed"
	actUnchanged = "unchanged"
)

// A change is what the file means for one thing.
type change struct {
	Kind   string        `json:"kind"`
	Name   string        `json:"name"`
	Action string        `json:"action"`
	Fields []fieldChange `json:"fields,omitempty"`

	line int
	do   []func(context.Context) error
}

// A fieldChange is one setting before and after.
type fieldChange struct {
	Field string `json:"field"`
	Old   any    `json:"old,omitempty"`
	New   any    `json:"new"`
}

// A plan is all changes, in the order in which they can be made: what others name
// comes first.
type plan struct {
	cl      *client.Client
	dir     string // of the file, for the files it names
	changes []*change

	registrations map[string]client.Registration // by lower-case name
	mailboxes     map[string]mailgrant.Mailbox   // by lower-case address
	apps          map[string]mailgrant.App       // by lower-case name
	webhooks      map[string]mailgrant.Webhook   // by lower-case name
	grants        []client.Grant
}

// newPlan compares the file with what is there. Nothing is changed yet, so that a
// file with a mistake changes nothing.
func newPlan(ctx context.Context, cl *client.Client, w wanted, dir string) (*plan, error) {
	p := &plan{cl: cl, dir: dir}
	if err := p.look(ctx); err != nil {
		return nil, err
	}
	for i := range w.Registrations {
		if err := p.registration(&w.Registrations[i]); err != nil {
			return nil, err
		}
	}
	if err := p.allMailboxes(w.Mailboxes); err != nil {
		return nil, err
	}
	for i := range w.Apps {
		if err := p.app(&w.Apps[i], w.Mailboxes); err != nil {
			return nil, err
		}
	}
	for i := range w.Webhooks {
		if err := p.webhook(&w.Webhooks[i], w); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *plan) look(ctx context.Context) error {
	regs, err := p.cl.Registrations(ctx)
	if err != nil {
		return err
	}
	boxes, err := p.cl.Mailboxes(ctx)
	if err != nil {
		return err
	}
	apps, err := p.cl.Apps(ctx)
	if err != nil {
		return err
	}
	hooks, err := p.cl.Webhooks(ctx)
	if err != nil {
		return err
	}
	if p.grants, err = p.cl.Grants(ctx); err != nil {
		return err
	}
	p.registrations, p.mailboxes, p.apps = map[string]client.Registration{}, map[string]mailgrant.Mailbox{}, map[string]mailgrant.App{}
	for _, r := range regs {
		p.registrations[strings.ToLower(r.Name)] = r
	}
	for _, m := range boxes {
		p.mailboxes[strings.ToLower(m.Address)] = m
	}
	for _, a := range apps {
		p.apps[strings.ToLower(a.Name)] = a
	}
	p.webhooks = map[string]mailgrant.Webhook{}
	for _, h := range hooks {
		p.webhooks[strings.ToLower(h.Name)] = h
	}
	return nil
}

// begin is a change that is nothing yet.
func (p *plan) begin(kind, name string, line int, exists bool) *change {
	c := &change{Kind: kind, Name: name, Action: actAdded, line: line}
	if exists {
		c.Action = actUnchanged
	}
	p.changes = append(p.changes, c)
	return c
}

// differs notes a setting that the file wants otherwise, and gives what to send: nil
// when there is nothing to do.
func differs[T any](c *change, field string, have T, want *T) *T {
	if want == nil || same(have, *want) {
		return nil
	}
	c.note(field, have, *want)
	return want
}

func (c *change) note(field string, have, want any) {
	f := fieldChange{Field: field, Old: have, New: want}
	if c.Action == actAdded {
		f.Old = nil
	} else {
		c.Action = actChanged
	}
	c.Fields = append(c.Fields, f)
}

// same compares settings; no list and an empty one are the same.
func same(a, b any) bool {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if k := x.Kind(); (k == reflect.Slice || k == reflect.Map) && x.Len() == 0 && y.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a, b)
}

// sameFold is a list of addresses that may be written in any case: have, where want
// is the same.
func sameFold(have []string, want *[]string) *[]string {
	if want == nil || len(have) != len(*want) {
		return want
	}
	for i := range have {
		if !strings.EqualFold(have[i], (*want)[i]) {
			return want
		}
	}
	return &have
}

// then adds what makes the change happen.
func (c *change) then(f func(context.Context) error) { c.do = append(c.do, f) }

// applied is what apply answers.
type applied struct {
	DryRun    bool      `json:"dry_run"`
	Changes   []*change `json:"changes"`
	Added     int       `json:"added"`
	Changed   int       `json:"changed"`
	Unchanged int       `json:"unchanged"`
}

func (a *applied) add(c *change) {
	a.Changes = append(a.Changes, c)
	switch c.Action {
	case actAdded:
		a.Added++
	case actChanged:
		a.Changed++
	default:
		a.Unchanged++
	}
}

// apply makes the changes one by one and says each as it is made. One that fails
// ends it; applying again goes on from there.
func (p *plan) apply(cmd *cobra.Command, c *cli, dry bool) error {
	done, out := applied{DryRun: dry, Changes: []*change{}}, &printer{cmd.OutOrStdout()}
	var failed error
	for _, x := range p.changes {
		if !dry {
			if failed = x.run(cmd.Context()); failed != nil {
				break
			}
		}
		done.add(x)
		if !c.json {
			out.change(x, dry)
		}
	}
	if err := c.show(cmd, done, func(p *printer) {
		p.line("%d added, %d changed, %d unchanged", done.Added, done.Changed, done.Unchanged)
		if dry {
			p.line("Nothing was done: --dry-run.")
		}
	}); err != nil {
		return err
	}
	return failed
}

func (c *change) run(ctx context.Context) error {
	for _, f := range c.do {
		if err := f(ctx); err != nil {
			e := *mailgrant.AsError(err)
			e.Message = fmt.Sprintf("line %d, %s %s: %s", c.line, c.Kind, c.Name, e.Message)
			return &e
		}
	}
	return nil
}

func (p *printer) change(c *change, dry bool) {
	action := c.Action
	if dry && action != actUnchanged {
		action = "would be " + action
	}
	p.line("%s %s: %s", c.Kind, oneLine(c.Name), action)
	for _, f := range c.Fields {
		if f.Old == nil {
			p.line("  %s: %s", f.Field, value(f.New))
			continue
		}
		p.line("  %s: %s → %s", f.Field, value(f.Old), value(f.New))
	}
}

// value is a setting as JSON writes it.
func value(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if string(b) == "null" {
		return "none"
	}
	return oneLine(string(b))
}

// secret reads what a credential names.
func (p *plan) secret(w wantCredential) (string, error) {
	if w.SecretEnv != "" {
		v := os.Getenv(w.SecretEnv)
		if v == "" {
			return "", mailgrant.Errorf(mailgrant.Misset, nil, "the environment variable %s, which should hold a secret, is empty", w.SecretEnv).
				Fix("set it where you apply the file")
		}
		return v, nil
	}
	name := w.SecretFile
	if !filepath.IsAbs(name) {
		name = filepath.Join(p.dir, name)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", mailgrant.Errorf(mailgrant.Misset, err, "a secret cannot be read: %v", err).Fix("put it there, or name another secret_file")
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
