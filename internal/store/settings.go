package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// Key is the form in which addresses and names are compared.
func Key(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// Organizations are all there are, oldest first.
func (s *Store) Organizations(ctx context.Context) ([]mailgrant.Organization, error) {
	return list(ctx, s.eng, "SELECT doc FROM organizations ORDER BY id", nil, doc[mailgrant.Organization])
}

// Organization is one of them.
func (s *Store) Organization(ctx context.Context, id mailgrant.ID) (mailgrant.Organization, error) {
	return first(ctx, s.eng, "organization", id, "SELECT doc FROM organizations WHERE id = ?", []any{string(id)}, doc[mailgrant.Organization])
}

// CreateOrganization adds o.
func (s *Store) CreateOrganization(ctx context.Context, o mailgrant.Organization) error {
	n, err := s.do(ctx, stmt{"INSERT INTO organizations (id, doc) VALUES (?, ?)", []any{string(o.ID), toJSON(o)}})
	return written(n, err, "organization", o.ID)
}

// UpdateOrganization replaces o.
func (s *Store) UpdateOrganization(ctx context.Context, o mailgrant.Organization) error {
	n, err := s.do(ctx, stmt{"UPDATE organizations SET doc = ? WHERE id = ?", []any{toJSON(o), string(o.ID)}})
	return written(n, err, "organization", o.ID)
}

// DeleteOrganization removes an organization that has nothing left.
func (s *Store) DeleteOrganization(ctx context.Context, id mailgrant.ID) error {
	n, err := s.do(ctx, stmt{"DELETE FROM organizations WHERE id = ?", []any{string(id)}})
	if errors.Is(err, errReference) {
		return mailgrant.Errorf(mailgrant.Conflict, err, "the organization still has registrations, mailboxes, apps or webhooks").
			Fix("remove them first")
	}
	return written(n, err, "organization", id)
}

// Registrations are those of the organization, oldest first.
func (s *Store) Registrations(ctx context.Context, org mailgrant.ID) ([]mailgrant.Registration, error) {
	return list(ctx, s.eng, "SELECT doc FROM registrations WHERE org = ? ORDER BY id", []any{string(org)}, doc[mailgrant.Registration])
}

// Registration is one of them.
func (s *Store) Registration(ctx context.Context, org, id mailgrant.ID) (mailgrant.Registration, error) {
	return first(ctx, s.eng, "registration", id, "SELECT doc FROM registrations WHERE org = ? AND id = ?",
		[]any{string(org), string(id)}, doc[mailgrant.Registration])
}

// RegistrationAnywhere finds a registration by its id alone: the provider's
// callback names nothing else.
func (s *Store) RegistrationAnywhere(ctx context.Context, id mailgrant.ID) (mailgrant.Registration, error) {
	return first(ctx, s.eng, "registration", id, "SELECT doc FROM registrations WHERE id = ?", []any{string(id)}, doc[mailgrant.Registration])
}

// CreateRegistration adds r.
func (s *Store) CreateRegistration(ctx context.Context, r mailgrant.Registration) error {
	n, err := s.change(ctx, mailgrant.Event{Org: r.Org, Kind: "registration.created", Subject: r.ID},
		stmt{"INSERT INTO registrations (org, id, doc) VALUES (?, ?, ?)", []any{string(r.Org), string(r.ID), toJSON(r)}})
	return written(n, err, "registration", r.ID)
}

// UpdateRegistration replaces r.
func (s *Store) UpdateRegistration(ctx context.Context, r mailgrant.Registration) error {
	n, err := s.change(ctx, mailgrant.Event{Org: r.Org, Kind: "registration.changed", Subject: r.ID},
		stmt{"UPDATE registrations SET doc = ? WHERE org = ? AND id = ?", []any{toJSON(r), string(r.Org), string(r.ID)}})
	return written(n, err, "registration", r.ID)
}

// DeleteRegistration removes a registration that no grant uses, and its
// credentials.
func (s *Store) DeleteRegistration(ctx context.Context, org, id mailgrant.ID) error {
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		users, err := list(ctx, q, "SELECT doc FROM grants WHERE org = ? AND registration = ?", []any{string(org), string(id)}, doc[mailgrant.Grant])
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return inUse("registration", "grants", names(users, func(g mailgrant.Grant) string { return g.Mailbox }))
		}
		for _, t := range []string{"credentials", "admin_consents"} {
			if _, err := q.exec(ctx, "DELETE FROM "+t+" WHERE org = ? AND registration = ?", string(org), string(id)); err != nil {
				return err
			}
		}
		n, err := q.exec(ctx, "DELETE FROM registrations WHERE org = ? AND id = ?", string(org), string(id))
		if err == nil && n == 0 {
			return notFound("registration", id)
		}
		if err != nil {
			return err
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: org, Kind: "registration.deleted", Subject: id})
	})
}

// inUse refuses to delete what others need, and names them. R156.
func inUse(what, users string, names string) error {
	return mailgrant.Errorf(mailgrant.Conflict, nil, "the %s is used by these %s: %s", what, users, names).
		Fix("remove or change them first")
}

func names[T any](l []T, f func(T) string) string {
	var out []string
	for _, v := range l {
		out = append(out, f(v))
	}
	return strings.Join(out, ", ")
}

func credential(r rows) (mailgrant.Credential, error) {
	var text string
	var sealed []byte
	if err := r.Scan(&text, &sealed); err != nil {
		return mailgrant.Credential{}, err
	}
	c := fromJSON[mailgrant.Credential](text)
	if c == nil {
		return mailgrant.Credential{}, errors.New("store: a credential does not read")
	}
	c.Sealed = sealed
	return *c, nil
}

// Credentials are those of a registration, newest first, with their seals.
func (s *Store) Credentials(ctx context.Context, org, registration mailgrant.ID) ([]mailgrant.Credential, error) {
	return list(ctx, s.eng, "SELECT doc, sealed FROM credentials WHERE org = ? AND registration = ? ORDER BY id DESC",
		[]any{string(org), string(registration)}, credential)
}

// CreateCredential adds c, its secret sealed.
func (s *Store) CreateCredential(ctx context.Context, c mailgrant.Credential) error {
	n, err := s.change(ctx, mailgrant.Event{Org: c.Org, Kind: "credential.created", Subject: c.ID},
		stmt{"INSERT INTO credentials (org, id, registration, doc, sealed) VALUES (?, ?, ?, ?, ?)",
			[]any{string(c.Org), string(c.ID), string(c.Registration), toJSON(c), c.Sealed}})
	if errors.Is(err, errReference) {
		return notFound("registration", c.Registration)
	}
	return written(n, err, "credential", c.ID)
}

// DeleteCredential removes one.
func (s *Store) DeleteCredential(ctx context.Context, org, id mailgrant.ID) error {
	n, err := s.change(ctx, mailgrant.Event{Org: org, Kind: "credential.deleted", Subject: id},
		stmt{"DELETE FROM credentials WHERE org = ? AND id = ?", []any{string(org), string(id)}})
	return written(n, err, "credential", id)
}

const appColumns = "SELECT doc FROM apps"

// Apps are those of the organization, oldest first.
func (s *Store) Apps(ctx context.Context, org mailgrant.ID) ([]mailgrant.App, error) {
	return list(ctx, s.eng, appColumns+" WHERE org = ? ORDER BY id", []any{string(org)}, doc[mailgrant.App])
}

// App is one of them.
func (s *Store) App(ctx context.Context, org, id mailgrant.ID) (mailgrant.App, error) {
	return first(ctx, s.eng, "app", id, appColumns+" WHERE org = ? AND id = ?", []any{string(org), string(id)}, doc[mailgrant.App])
}

// AppByName are the apps of that name in all organizations.
func (s *Store) AppByName(ctx context.Context, name string) ([]mailgrant.App, error) {
	return list(ctx, s.eng, appColumns+" WHERE name = ?", []any{Key(name)}, doc[mailgrant.App])
}

// CreateApp adds a.
func (s *Store) CreateApp(ctx context.Context, a mailgrant.App) error {
	n, err := s.change(ctx, mailgrant.Event{Org: a.Org, Kind: "app.created", Subject: a.ID, App: a.ID},
		stmt{"INSERT INTO apps (org, id, name, doc) VALUES (?, ?, ?, ?)", []any{string(a.Org), string(a.ID), Key(a.Name), toJSON(a)}})
	return written(n, err, "app", a.ID)
}

// UpdateApp replaces a.
func (s *Store) UpdateApp(ctx context.Context, a mailgrant.App) error {
	n, err := s.change(ctx, mailgrant.Event{Org: a.Org, Kind: "app.changed", Subject: a.ID, App: a.ID},
		stmt{"UPDATE apps SET name = ?, doc = ? WHERE org = ? AND id = ?", []any{Key(a.Name), toJSON(a), string(a.Org), string(a.ID)}})
	return written(n, err, "app", a.ID)
}

// DeleteApp removes an app that no webhook names, and its keys.
func (s *Store) DeleteApp(ctx context.Context, org, id mailgrant.ID) error {
	defer s.told()
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		if err := unnamed(ctx, q, org, "app", func(w mailgrant.Webhook) bool { return w.App == id }); err != nil {
			return err
		}
		if _, err := q.exec(ctx, "DELETE FROM keys WHERE org = ? AND app = ?", string(org), string(id)); err != nil {
			return err
		}
		n, err := q.exec(ctx, "DELETE FROM apps WHERE org = ? AND id = ?", string(org), string(id))
		if err != nil || n == 0 {
			return written([]int64{n}, err, "app", id)
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: org, Kind: "app.deleted", Subject: id, App: id})
	})
}

func keyRow(r rows) (mailgrant.Key, error) {
	var text string
	var hash []byte
	var revoked, used int64
	if err := r.Scan(&text, &hash, &revoked, &used); err != nil {
		return mailgrant.Key{}, err
	}
	k := fromJSON[mailgrant.Key](text)
	if k == nil {
		return mailgrant.Key{}, errors.New("store: a key does not read")
	}
	k.Hash, k.RevokedAt, k.LastUse = hash, timeOf(revoked), timeOf(used)
	return *k, nil
}

const keyColumns = "SELECT doc, hash, revoked_at, last_use FROM keys"

// Keys are those of an app, oldest first.
func (s *Store) Keys(ctx context.Context, org, app mailgrant.ID) ([]mailgrant.Key, error) {
	return list(ctx, s.eng, keyColumns+" WHERE org = ? AND app = ? ORDER BY id", []any{string(org), string(app)}, keyRow)
}

// CreateKey adds k by its hash.
func (s *Store) CreateKey(ctx context.Context, k mailgrant.Key) error {
	n, err := s.change(ctx, mailgrant.Event{Org: k.Org, Kind: "key.created", Subject: k.ID, App: k.App},
		stmt{"INSERT INTO keys (org, id, app, hash, doc) VALUES (?, ?, ?, ?, ?)",
			[]any{string(k.Org), string(k.ID), string(k.App), k.Hash, toJSON(k)}})
	if errors.Is(err, errReference) {
		return notFound("app", k.App)
	}
	return written(n, err, "key", k.ID)
}

// RevokeKey ends a key; it stays listed.
func (s *Store) RevokeKey(ctx context.Context, org, id mailgrant.ID, at time.Time) error {
	n, err := s.change(ctx, mailgrant.Event{Org: org, Kind: "key.revoked", Subject: id},
		stmt{"UPDATE keys SET revoked_at = CASE WHEN revoked_at = 0 THEN ? ELSE revoked_at END WHERE org = ? AND id = ?",
			[]any{micros(at), string(org), string(id)}})
	return written(n, err, "key", id)
}

// KeyByHash finds a key, revoked or not, and its app.
func (s *Store) KeyByHash(ctx context.Context, hash []byte) (mailgrant.Key, mailgrant.App, error) {
	k, err := first(ctx, s.eng, "key", "", keyColumns+" WHERE hash = ?", []any{hash}, keyRow)
	if err != nil {
		return k, mailgrant.App{}, err
	}
	a, err := s.App(ctx, k.Org, k.App)
	return k, a, err
}

// TouchKeys notes when keys were used.
func (s *Store) TouchKeys(ctx context.Context, used map[mailgrant.ID]time.Time) error {
	stmts := make([]stmt, 0, len(used))
	for id, at := range used {
		stmts = append(stmts, stmt{"UPDATE keys SET last_use = ? WHERE id = ? AND last_use < ?", []any{micros(at), string(id), micros(at)}})
	}
	if len(stmts) == 0 {
		return nil
	}
	_, err := s.do(ctx, stmts...)
	return err
}
