package adopt

import (
	"bytes"
	"fmt"

	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant"
)

// Settings are what mailgrant apply reads. docs/apply.md describes them.
type Settings struct {
	Registrations []Registration `yaml:"registrations,omitempty" json:"registrations,omitempty"`
	Mailboxes     []Mailbox      `yaml:"mailboxes,omitempty" json:"mailboxes,omitempty"`
}

type Registration struct {
	Name        string            `yaml:"name" json:"name"`
	Template    string            `yaml:"template" json:"template"`
	Cloud       string            `yaml:"cloud,omitempty" json:"cloud,omitempty"`
	Tenant      string            `yaml:"tenant,omitempty" json:"tenant,omitempty"`
	ClientID    string            `yaml:"client_id,omitempty" json:"client_id,omitempty"`
	Overrides   map[string]string `yaml:"overrides,omitempty" json:"overrides,omitempty"`
	ScopesExtra []string          `yaml:"scopes_extra,omitempty" json:"scopes_extra,omitempty"`
	Credentials []Credential      `yaml:"credentials,omitempty" json:"credentials,omitempty"`

	missing string // what is still to be entered
}

type Credential struct {
	Kind        mailgrant.CredentialKind `yaml:"kind" json:"kind"`
	Description string                   `yaml:"description" json:"description"`
	SecretEnv   string                   `yaml:"secret_env,omitempty" json:"secret_env,omitempty"`
}

type Mailbox struct {
	Address string                `yaml:"address" json:"address"`
	Kind    mailgrant.MailboxKind `yaml:"kind,omitempty" json:"kind,omitempty"`
	Receive *Receive              `yaml:"receive,omitempty" json:"receive,omitempty"`
	Grant   Grant                 `yaml:"grant" json:"grant"`
}

type Receive struct {
	Protocol string              `yaml:"protocol" json:"protocol"`
	Folders  []string            `yaml:"folders,omitempty,flow" json:"folders,omitempty"`
	After    mailgrant.AfterRead `yaml:"after" json:"after"`
	MoveTo   string              `yaml:"move_to,omitempty" json:"move_to,omitempty"`
	Poll     mailgrant.Duration  `yaml:"poll,omitempty" json:"poll,omitempty"`
}

type Grant struct {
	Registration string                 `yaml:"registration" json:"registration"`
	Flow         mailgrant.Flow         `yaml:"flow,omitempty" json:"flow,omitempty"`
	Capabilities []mailgrant.Capability `yaml:"capabilities,omitempty,flow" json:"capabilities,omitempty"`
}

// File is the file for mailgrant apply. It is nil when nothing could be taken over.
func (r Report) File() ([]byte, error) {
	if len(r.Settings.Mailboxes) == 0 {
		return nil, nil
	}
	var doc yaml.Node
	if err := doc.Encode(r.Settings); err != nil {
		return nil, fmt.Errorf("write the settings: %w", err)
	}
	for i, reg := range r.Settings.Registrations { // the registrations come first
		if reg.missing != "" {
			doc.Content[1].Content[i].Content[1].LineComment = "still to be entered: " + reg.missing
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by mailgrant import from settings of %s. It holds no secrets.\n", r.Format)
	for _, s := range r.Secrets {
		fmt.Fprintf(&b, "# %s: %s\n", s.Env, s.From())
	}
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return nil, fmt.Errorf("write the settings: %w", err)
	}
	return b.Bytes(), nil
}

// From says for people where a secret is to be taken from.
func (s Secret) From() string {
	if s.Line == 0 {
		return s.What
	}
	return fmt.Sprintf("%s, in line %d", s.What, s.Line)
}
