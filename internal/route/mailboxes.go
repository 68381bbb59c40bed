package route

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/pop"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// A MailboxStore is what the rules about mailboxes need.
type MailboxStore interface {
	Store
	Mailboxes(ctx context.Context, org mailgrant.ID) ([]mailgrant.Mailbox, error)
	MailboxesByGrant(ctx context.Context, org, grant mailgrant.ID) ([]mailgrant.Mailbox, error)
	CreateMailbox(ctx context.Context, m mailgrant.Mailbox) error
	UpdateMailbox(ctx context.Context, m mailgrant.Mailbox) error
	DeleteMailbox(ctx context.Context, org, id mailgrant.ID) error
	ResumeMailbox(ctx context.Context, org, id mailgrant.ID) error
}

// Mailboxes are added, changed and removed by these rules: one Global and one
// System, each with a grant of its own (R7, R12, R13); a personal mailbox is
// never one of them (R18).
type Mailboxes struct {
	store  MailboxStore
	router *Router

	// Changed is called after a change, with the mailbox; nil is no one.
	Changed func(mailgrant.Mailbox)
}

// NewMailboxes makes the rules over s; r is told of changes.
func NewMailboxes(s MailboxStore, r *Router) *Mailboxes { return &Mailboxes{store: s, router: r} }

// CreateMailbox adds m and gives it back with its id.
func (b *Mailboxes) CreateMailbox(ctx context.Context, m mailgrant.Mailbox) (mailgrant.Mailbox, error) {
	now := time.Now().UTC()
	m.ID, m.State, m.Hold = mailgrant.NewID(mailgrant.PrefixMailbox), mailgrant.MailboxActive, nil
	m.CreatedAt, m.UpdatedAt = now, now
	if err := b.check(ctx, &m); err != nil {
		return m, err
	}
	if err := b.store.CreateMailbox(ctx, m); err != nil {
		return m, err
	}
	b.changed(m)
	return m, nil
}

// UpdateMailbox replaces the settings of m.
func (b *Mailboxes) UpdateMailbox(ctx context.Context, m mailgrant.Mailbox) (mailgrant.Mailbox, error) {
	old, err := b.store.Mailbox(ctx, m.Org, m.ID)
	if err != nil {
		return m, err
	}
	m.CreatedAt, m.UpdatedAt = old.CreatedAt, time.Now().UTC()
	if old.Role == mailgrant.RolePersonal && (m.Role == mailgrant.RoleGlobal || m.Role == mailgrant.RoleSystem) {
		return m, mailgrant.Errorf(mailgrant.Conflict, nil, "%s is a person's own mailbox and cannot be the %s one", old.Address, m.Role).At("role").
			Fix("connect another mailbox for it; if %s is nobody's own any more, take the role from it first: mailgrant mailbox set %s --role none", old.Address, old.Address)
	}
	if err := b.check(ctx, &m); err != nil {
		return m, err
	}
	if err := b.store.UpdateMailbox(ctx, m); err != nil {
		return m, err
	}
	b.changed(m)
	return b.store.Mailbox(ctx, m.Org, m.ID)
}

// DeleteMailbox removes a mailbox that has nothing left to send.
func (b *Mailboxes) DeleteMailbox(ctx context.Context, org, id mailgrant.ID) error {
	if err := b.store.DeleteMailbox(ctx, org, id); err != nil {
		return err
	}
	b.changed(mailgrant.Mailbox{ID: id, Org: org})
	return nil
}

// ResumeMailbox ends a hold by hand: the next message is the probe.
func (b *Mailboxes) ResumeMailbox(ctx context.Context, org, id mailgrant.ID) error {
	if err := b.store.ResumeMailbox(ctx, org, id); err != nil {
		return err
	}
	b.changed(mailgrant.Mailbox{ID: id, Org: org})
	return nil
}

func (b *Mailboxes) changed(m mailgrant.Mailbox) {
	b.router.Forget()
	if b.Changed != nil {
		b.Changed(m)
	}
}

func invalid(field, format string, args ...any) *mailgrant.Error {
	return mailgrant.Errorf(mailgrant.Invalid, nil, format, args...).At(field)
}

func (b *Mailboxes) check(ctx context.Context, m *mailgrant.Mailbox) error {
	a, err := rfc5322.ParseAddress(m.Address)
	if err != nil {
		return invalid("address", "%q is not an address of a mailbox", m.Address).Fix("write it as name@domain")
	}
	m.Address = a.String()
	if m.Kind == "" {
		m.Kind = mailgrant.MailboxOwn
	}
	if m.Transport == "" {
		m.Transport = "auto"
	}
	for _, c := range []struct {
		field, value string
		allowed      []string
	}{
		{"kind", string(m.Kind), []string{"own", "shared", "app"}},
		{"role", string(m.Role), []string{"", "personal", "global", "system"}},
		{"transport", m.Transport, []string{"auto", "smtp", "graph", "gmail"}},
		{"uncertain", m.Uncertain, []string{"", "resend", "hold"}},
	} {
		if !slices.Contains(c.allowed, c.value) {
			return invalid(c.field, "%q is no %s of a mailbox", c.value, c.field).
				Fix("use one of: %s", strings.TrimPrefix(strings.Join(c.allowed, ", "), ", "))
		}
	}
	if time.Duration(m.Life) < 0 {
		return invalid("life", "the life of a submission cannot be negative").Fix("leave it out for 5 days")
	}
	for i, s := range m.Senders {
		if s = strings.TrimSpace(s); s == "*" || strings.HasPrefix(s, "*@") && len(s) > 2 {
			m.Senders[i] = s
			continue
		}
		a, err := rfc5322.ParseAddress(s)
		if err != nil {
			return invalid("senders", "%q is not a sender rule", s).Fix("write name@domain, *@domain or *")
		}
		m.Senders[i] = a.String()
	}
	if err := checkReceive(m.Receive); err != nil {
		return err
	}
	return b.apart(ctx, *m)
}

// foldersMax bounds what one reader follows.
const foldersMax = 20

// checkReceive sees that a mailbox can be read as it is asked for.
func checkReceive(r *mailgrant.Receive) error {
	if r == nil {
		return nil
	}
	for _, c := range []struct {
		field, value string
		allowed      []string
	}{
		{"receive.protocol", r.Protocol, []string{"auto", "imap", "pop", "graph"}},
		{"receive.after", string(r.After), []string{"", "leave", "mark", "move", "delete"}},
	} {
		if !slices.Contains(c.allowed, c.value) {
			return invalid(c.field, "%s cannot be %q", c.field, c.value).Fix("use one of: %s", strings.TrimPrefix(strings.Join(c.allowed, ", "), ", "))
		}
	}
	switch {
	case r.After == mailgrant.AfterMove && strings.TrimSpace(r.MoveTo) == "":
		return invalid("receive.move_to", "it is not said where read mail is to be moved").Fix("name a folder (receive.move_to, or --move-to); it is made where it is missing")
	case r.After != mailgrant.AfterMove && r.MoveTo != "":
		return invalid("receive.move_to", "a folder is named, but read mail is not to be moved").Fix("leave the folder out, or set receive.after to move (--after-reading move)")
	case slices.Contains(r.Folders, r.MoveTo) && r.MoveTo != "":
		return invalid("receive.move_to", "read mail would be moved into a folder that is read").Fix("name another folder")
	case len(r.Folders) > foldersMax:
		return invalid("receive.folders", "more than %d folders of one mailbox are to be read", foldersMax).Fix("read fewer, or have the provider's rules gather the mail")
	case r.Poll < 0 || r.Poll > 0 && time.Duration(r.Poll) < pollMin:
		return invalid("receive.poll", "a mailbox cannot be asked more often than every %s", pollMin).Fix("choose a longer time, or 0 for the usual one")
	case r.Keep != nil && *r.Keep < 0:
		return invalid("receive.keep", "bodies cannot be kept for a negative time").Fix("use 0 to keep headers only")
	case r.Since != nil && r.Everything:
		return invalid("receive.since", "everything is to be read, and only what came since a date").Fix("leave one of both out")
	}
	if r.Protocol == pop.Name {
		return pop.Check(*r)
	}
	return nil
}

// pollMin keeps us from being thought an attack.
const pollMin = 10 * time.Second

// apart keeps Global, System and personal mailboxes from each other.
func (b *Mailboxes) apart(ctx context.Context, m mailgrant.Mailbox) error {
	if m.Role == mailgrant.RoleGlobal || m.Role == mailgrant.RoleSystem {
		same, err := b.store.MailboxesByRole(ctx, m.Org, m.Role)
		if err != nil {
			return err
		}
		for _, o := range same {
			if o.ID != m.ID {
				return mailgrant.Errorf(mailgrant.Conflict, nil, "%s is the %s mailbox already", o.Address, m.Role).At("role").
					Fix("take the role from it first: mailgrant mailbox set %s --role none", o.Address)
			}
		}
	}
	if m.Grant == "" {
		return nil
	}
	if _, err := b.store.Grant(ctx, m.Org, m.Grant); err != nil {
		return err
	}
	if m.Role == mailgrant.RoleNone { // it may share a grant with any other, and there may be thousands
		return nil
	}
	users, err := b.store.MailboxesByGrant(ctx, m.Org, m.Grant)
	if err != nil {
		return err
	}
	for _, o := range users {
		if o.ID == m.ID {
			continue
		}
		shared := m.Role == mailgrant.RoleGlobal || m.Role == mailgrant.RoleSystem
		other := o.Role == mailgrant.RoleGlobal || o.Role == mailgrant.RoleSystem
		if shared && other || shared && o.Role == mailgrant.RolePersonal || other && m.Role == mailgrant.RolePersonal ||
			m.Role == mailgrant.RolePersonal && o.Role == mailgrant.RolePersonal {
			return mailgrant.Errorf(mailgrant.Conflict, nil,
				"%s uses this grant already as its %s mailbox; Global, System and personal mailboxes each need a grant of their own", o.Address, o.Role).At("grant").
				Fix("make another grant for %s, so that one can be revoked without the other: mailgrant grant begin %s --new", m.Address, m.Address)
		}
	}
	return nil
}
