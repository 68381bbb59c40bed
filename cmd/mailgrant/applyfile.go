package main

import (
	"errors"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant"
)

// A wanted is what a file for apply says, and what export writes. What it leaves out
// stays as it is. docs/apply.md describes it.
type wanted struct {
	Registrations []wantRegistration `yaml:"registrations,omitempty"`
	Mailboxes     []wantMailbox      `yaml:"mailboxes,omitempty"`
	Apps          []wantApp          `yaml:"apps,omitempty"`
	Webhooks      []wantWebhook      `yaml:"webhooks,omitempty"`
}

// A wantRegistration is known by its name.
type wantRegistration struct {
	Name        string             `yaml:"name"`
	Template    *string            `yaml:"template,omitempty"`
	Cloud       *string            `yaml:"cloud,omitempty"`
	Tenant      *string            `yaml:"tenant,omitempty"`
	Issuer      *string            `yaml:"issuer,omitempty"`
	ClientID    *string            `yaml:"client_id,omitempty"`
	Prompt      *string            `yaml:"prompt,omitempty"`
	Overrides   *map[string]string `yaml:"overrides,omitempty"`
	ScopesExtra *[]string          `yaml:"scopes_extra,omitempty"`
	ScopesLeave *[]string          `yaml:"scopes_leave,omitempty"`
	DeviceFlow  *bool              `yaml:"device_flow,omitempty"`
	CAFile      *string            `yaml:"ca_file,omitempty"`
	Disabled    *bool              `yaml:"disabled,omitempty"`
	Credentials []wantCredential   `yaml:"credentials,omitempty"`

	line int
}

// A wantCredential is known by its kind and description within its registration.
type wantCredential struct {
	Kind        mailgrant.CredentialKind `yaml:"kind,omitempty"` // default secret
	Description string                   `yaml:"description,omitempty"`
	SecretEnv   string                   `yaml:"secret_env,omitempty"`
	SecretFile  string                   `yaml:"secret_file,omitempty"`
	TokenFile   string                   `yaml:"token_file,omitempty"`
	NotBefore   *time.Time               `yaml:"not_before,omitempty"`
	NotAfter    *time.Time               `yaml:"not_after,omitempty"`
}

// A wantMailbox is known by its address.
type wantMailbox struct {
	Address     string                 `yaml:"address"`
	DisplayName *string                `yaml:"display_name,omitempty"`
	Kind        *mailgrant.MailboxKind `yaml:"kind,omitempty"`
	Role        *string                `yaml:"role,omitempty"` // none for none
	Person      *string                `yaml:"person,omitempty"`
	Transport   *string                `yaml:"transport,omitempty"`
	Senders     *[]string              `yaml:"senders,omitempty"`
	Limits      *wantLimits            `yaml:"limits,omitempty"`
	Life        *mailgrant.Duration    `yaml:"life,omitempty"`
	Receive     *wantReceive           `yaml:"receive,omitempty"`
	Uncertain   *string                `yaml:"uncertain,omitempty"`
	Disabled    *bool                  `yaml:"disabled,omitempty"`
	Grant       *wantGrant             `yaml:"grant,omitempty"`

	line    int
	grantID mailgrant.ID // found or made for it
}

type wantLimits struct {
	Connections      *int   `yaml:"connections,omitempty"`
	PerMinute        *int   `yaml:"per_minute,omitempty"`
	RecipientsPerDay *int   `yaml:"recipients_per_day,omitempty"`
	MessageBytes     *int64 `yaml:"message_bytes,omitempty"`
}

// A wantReceive is how the mailbox is to be read.
type wantReceive struct {
	Protocol   *string              `yaml:"protocol,omitempty"` // off ends it
	Folders    *[]string            `yaml:"folders,omitempty"`
	After      *mailgrant.AfterRead `yaml:"after,omitempty"`
	MoveTo     *string              `yaml:"move_to,omitempty"`
	Since      *time.Time           `yaml:"since,omitempty"`
	Everything *bool                `yaml:"everything,omitempty"`
	Poll       *mailgrant.Duration  `yaml:"poll,omitempty"`
	Keep       *mailgrant.Duration  `yaml:"keep,omitempty"`
}

// A wantGrant is what the mailbox is to be consented for. The consent itself is a
// person's.
type wantGrant struct {
	Registration string                  `yaml:"registration"`
	Flow         *mailgrant.Flow         `yaml:"flow,omitempty"`
	Capabilities *[]mailgrant.Capability `yaml:"capabilities,omitempty"`
}

// A wantApp is known by its name. Its mailboxes are addresses.
type wantApp struct {
	Name      string             `yaml:"name"`
	Classes   *[]mailgrant.Class `yaml:"classes,omitempty"`
	Mailboxes *[]string          `yaml:"mailboxes,omitempty"`
	Senders   *[]string          `yaml:"senders,omitempty"`
	Doors     *[]string          `yaml:"doors,omitempty"`
	PerMinute *int               `yaml:"per_minute,omitempty"`
	Disabled  *bool              `yaml:"disabled,omitempty"`

	line int
}

// inFile is an error at a line of the file.
func inFile(line int, format string, args ...any) *mailgrant.Error {
	at := "line " + strconv.Itoa(line)
	return mailgrant.Errorf(mailgrant.Invalid, nil, at+": "+format, args...).At(at)
}

// readWanted reads a file. A name it does not know is an error: a misspelt setting
// must not be a silent default.
func readWanted(r io.Reader) (wanted, error) {
	var w wanted
	var doc yaml.Node
	d := yaml.NewDecoder(r)
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return w, mailgrant.Errorf(mailgrant.Invalid, nil, "the file is empty").Fix("write one, or begin with: mailgrant export")
	case err != nil:
		return w, notYAML(err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return w, mailgrant.Errorf(mailgrant.Invalid, err, "the file holds more than one document").Fix("put all into one, without ---")
	}
	if err := known(&doc, reflect.TypeFor[wanted](), "the file"); err != nil {
		return w, err
	}
	if err := doc.Decode(&w); err != nil {
		return w, notYAML(err)
	}
	return w, w.place(doc.Content[0])
}

func notYAML(err error) error {
	var kinds *yaml.TypeError
	if errors.As(err, &kinds) {
		text := strings.NewReplacer("!!", "", "main.", "").Replace(kinds.Errors[0])
		return mailgrant.Errorf(mailgrant.Invalid, err, "%s", text).Fix("write what docs/apply.md names for it")
	}
	return mailgrant.Errorf(mailgrant.Invalid, err, "the file is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: ")).Fix("mend the line it names")
}

// known walks the file beside the types it is read into.
func known(n *yaml.Node, t reflect.Type, what string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n.Kind == yaml.DocumentNode:
		return known(n.Content[0], t, what)
	case n.Kind == yaml.AliasNode:
		return known(n.Alias, t, what)
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for _, e := range n.Content {
			if err := known(e, t.Elem(), what); err != nil {
				return err
			}
		}
	case t == reflect.TypeFor[time.Time]():
		if n.Decode(new(time.Time)) != nil {
			return inFile(n.Line, "%q is not a time", n.Value).Fix("write it like 2026-11-01 or 2026-11-01T08:00:00Z")
		}
	case t == reflect.TypeFor[mailgrant.Duration]():
		if n.Decode(new(mailgrant.Duration)) != nil {
			return inFile(n.Line, "%q is not a duration", n.Value).Fix("write it like 36h or 30m")
		}
	case t.Kind() == reflect.Struct:
		return knownKeys(n, t, what)
	}
	return nil
}

// things names the parts of the file for people.
var things = map[string]string{"registrations": "a registration", "credentials": "a credential", "mailboxes": "a mailbox", "limits": "limits", "receive": "receive", "grant": "a grant", "apps": "an app", "webhooks": "a webhook"}

// secretNames are what people call a secret.
var secretNames = []string{"secret", "client_secret", "password", "key", "private_key", "certificate"}

func knownKeys(n *yaml.Node, t reflect.Type, what string) error {
	if n.Kind != yaml.MappingNode {
		return inFile(n.Line, "%s is a list of names and values, not %q", what, n.Value).Fix("write it as docs/apply.md shows")
	}
	fields := map[string]reflect.Type{}
	var all []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name != "" {
			fields[name] = t.Field(i).Type
			all = append(all, name)
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		ft, ok := fields[key.Value]
		switch {
		case key.Tag == "!!merge":
			ft, ok = t, true
		case !ok && slices.Contains(secretNames, key.Value):
			return inFile(key.Line, "a secret does not stand in this file").Fix("name where it is: secret_env or secret_file of a credential")
		case !ok:
			return inFile(key.Line, "%s has no %q", what, key.Value).Fix("use one of: %s", strings.Join(all, ", "))
		}
		inner := what
		if name := things[key.Value]; name != "" {
			inner = name
		}
		if err := known(value, ft, inner); err != nil {
			return err
		}
	}
	return nil
}

// place notes the lines of things, and sees that each is named once.
func (w *wanted) place(root *yaml.Node) error {
	lines := func(kind string, i int) int {
		for j := 0; j+1 < len(root.Content); j += 2 {
			if root.Content[j].Value == kind && i < len(root.Content[j+1].Content) {
				return root.Content[j+1].Content[i].Line
			}
		}
		return root.Line // behind an alias
	}
	seen := map[string]int{}
	once := func(kind, field, name string, line int) error {
		if strings.TrimSpace(name) == "" {
			return inFile(line, "%s has no %s", things[kind], field).Fix("give it one: it is known by that")
		}
		key := kind + " " + strings.ToLower(name)
		if before := seen[key]; before > 0 {
			return inFile(line, "%s is there already, in line %d", name, before).Fix("keep one of them")
		}
		seen[key] = line
		return nil
	}
	for i := range w.Registrations {
		r := &w.Registrations[i]
		r.line = lines("registrations", i)
		if err := once("registrations", "name", r.Name, r.line); err != nil {
			return err
		}
	}
	for i := range w.Mailboxes {
		m := &w.Mailboxes[i]
		m.line = lines("mailboxes", i)
		if err := once("mailboxes", "address", m.Address, m.line); err != nil {
			return err
		}
	}
	for i := range w.Apps {
		a := &w.Apps[i]
		a.line = lines("apps", i)
		if err := once("apps", "name", a.Name, a.line); err != nil {
			return err
		}
	}
	for i := range w.Webhooks {
		h := &w.Webhooks[i]
		h.line = lines("webhooks", i)
		if err := once("webhooks", "name", h.Name, h.line); err != nil {
			return err
		}
	}
	return nil
}
