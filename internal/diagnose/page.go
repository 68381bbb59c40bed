package diagnose

import (
	"fmt"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// families are the headings under which causes are listed.
var families = []struct{ letter, words string }{
	{"A", "Switches in Exchange and in the mailbox"},
	{"B", "Which mailbox, which user"},
	{"C", "Token contents and scopes"},
	{"D", "The app registration"},
	{"E", "The sign-in and the grant"},
	{"F", "Google only"},
	{"G", "Console sign-in (OpenID Connect)"},
	{"H", "Limits"},
	{"I", "The message and its recipients"},
	{"J", "Transport"},
	{"K", "No failure"},
	{"", "Not recognised"},
	{refused, "Refused by mailgrant itself"},
}

// WhoWords says to people who can mend a failure.
func WhoWords(w mailgrant.Who) string {
	switch w {
	case mailgrant.WhoOperator:
		return "whoever runs mailgrant or the sending program"
	case mailgrant.WhoTenantAdmin:
		return "the administrator of the organisation"
	case mailgrant.WhoMailboxOwner:
		return "the owner of the mailbox"
	case mailgrant.WhoProvider:
		return "the provider"
	}
	return "nobody: it passes by itself"
}

// RetryWords says to people what becomes of the mail meanwhile.
func RetryWords(r mailgrant.Retry) string {
	switch r {
	case mailgrant.RetryNow:
		return "it is tried again at once, with a new connection or token"
	case mailgrant.RetryLater:
		return "it is kept and tried again later"
	case mailgrant.RetryReauthorize:
		return "it is kept until somebody has signed in again"
	case mailgrant.RetryFix:
		return "it is kept until the setting is mended"
	case mailgrant.RetryNever:
		return "this message is given up for the recipients named; the mailbox is fine"
	}
	return "nothing is wrong with it"
}

// Plain is the cause with words in place of the facts of a case, to show it by
// itself. A refusal names no facts.
func (c Cause) Plain() Cause {
	if c.Family == refused {
		return c
	}
	none := &evidence{}
	c.Sentence, c.Remedy = none.fill(c.Sentence), none.fill(c.Remedy)
	c.Steps = none.plainSteps(c.Steps)
	if c.Consumer != nil {
		o := *c.Consumer
		o.Remedy, o.Steps = none.fill(o.Remedy), none.plainSteps(o.Steps)
		c.Consumer = &o
	}
	return c
}

func (e *evidence) plainSteps(steps []Step) []Step {
	var plain []Step
	for _, s := range steps {
		plain = append(plain, Step{Place: e.fill(s.Place), Text: e.fill(s.Text), Command: e.fillCommand(s.Command)})
	}
	return plain
}

// Page is the cause as a document in Markdown. Other causes are linked as ID.md
// beside it.
func (c Cause) Page() string {
	c = c.Plain()
	meanwhile := RetryWords(c.Retry)
	if c.Meanwhile != "" {
		meanwhile = c.Meanwhile
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n`%s`\n\n%s\n\n", c.Title, c.ID, c.Sentence)
	fmt.Fprintf(&b, "- **Who can mend it:** %s\n- **The mail meanwhile:** %s\n", WhoWords(c.Who), meanwhile)
	fmt.Fprintf(&b, "\n## What to do\n\n%s\n", c.Remedy)
	writeSteps(&b, c.Steps)
	if c.Consumer != nil {
		fmt.Fprintf(&b, "\n## Where no organisation stands behind the mailbox\n\n%s\n\nWho can mend it: %s.\n", c.Consumer.Remedy, WhoWords(c.Consumer.Who))
		writeSteps(&b, c.Consumer.Steps)
	}
	if len(c.Texts) > 0 {
		b.WriteString("\n## What it looks like\n\n")
		for _, t := range c.Texts {
			fmt.Fprintf(&b, "- `%s`\n", t)
		}
	}
	if c.Notes != "" {
		fmt.Fprintf(&b, "\n## Worth knowing\n\n%s\n", c.Notes)
	}
	c.writeMore(&b)
	return b.String()
}

func writeSteps(b *strings.Builder, steps []Step) {
	for i, s := range steps {
		if i == 0 {
			b.WriteString("\n")
		}
		place := ""
		if s.Place != "" {
			place = "**" + s.Place + "**: "
		}
		fmt.Fprintf(b, "%d. %s%s\n", i+1, place, s.Text)
		if s.Command != "" {
			fmt.Fprintf(b, "\n   ```\n   %s\n   ```\n", s.Command)
			if i+1 < len(steps) {
				b.WriteString("\n")
			}
		}
	}
}

// writeMore ends a page with codes, neighbours and the vendor's own pages.
func (c Cause) writeMore(b *strings.Builder) {
	if len(c.Codes)+len(c.Related)+len(c.Links) == 0 {
		return
	}
	b.WriteString("\n## See also\n\n")
	for _, id := range c.Related {
		if r, ok := Lookup(id); ok {
			fmt.Fprintf(b, "- [%s](%s.md)\n", r.Title, r.ID)
		}
	}
	for _, l := range c.Links {
		fmt.Fprintf(b, "- <%s>\n", l)
	}
	if len(c.Codes) > 0 {
		fmt.Fprintf(b, "- Codes: `%s`\n", strings.Join(c.Codes, "`, `"))
	}
}

// Index is the page that lists all causes.
func Index() string {
	var b strings.Builder
	b.WriteString("# What went wrong, and what to do\n\n" +
		"Every failure that mailgrant shows has one of these causes, with the same words in the console,\n" +
		"the API, the command line and here. `mailgrant explain TEXT` finds the cause of any text.\n")
	all := append(Catalogue(), Refusals()...)
	for _, f := range families {
		fmt.Fprintf(&b, "\n## %s\n\n", f.words)
		for _, c := range all {
			if c.Family == f.letter {
				fmt.Fprintf(&b, "- [%s](%s.md): %s\n", c.Title, c.ID, c.Plain().Sentence)
			}
		}
	}
	return b.String()
}
