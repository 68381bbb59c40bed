package store_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/test/real"
)

var update = flag.Bool("update", false, "write the databases of the present schema into testdata, for a version that is released")

// The databases that a released version left are kept: schema 1 is the first.
const (
	keptSQLite   = "testdata/schema1.db.gz"
	keptPostgres = "testdata/schema1.sql.gz"
)

func fill(t *testing.T, s *store.Store) {
	h := house{s, "org_kept", "mbx_kept"}
	ctx := t.Context()
	must(t, s.CreateOrganization(ctx, mailgrant.Organization{ID: h.org, Name: "Contoso"}))
	must(t, s.CreateRegistration(ctx, mailgrant.Registration{ID: "reg_kept", Org: h.org, Name: "M365", Template: "microsoft365", ClientID: "c"}))
	must(t, s.CreateCredential(ctx, mailgrant.Credential{ID: "crd_kept", Org: h.org, Registration: "reg_kept", Kind: mailgrant.CredentialSecret, Sealed: []byte("sealed")}))
	must(t, s.CreateGrant(ctx, mailgrant.Grant{ID: "gra_kept", Org: h.org, Registration: "reg_kept", Mailbox: "office@contoso.example"}))
	must(t, s.CompleteConsent(ctx, mailgrant.Grant{ID: "gra_kept", Org: h.org, Mailbox: "office@contoso.example", Sealed: []byte("sealed"), Subject: mailgrant.Subject{TenantID: "t", ObjectID: "o"}}))
	must(t, s.CreateMailbox(ctx, mailgrant.Mailbox{ID: h.box, Org: h.org, Address: "office@contoso.example", Role: mailgrant.RoleGlobal, Grant: "gra_kept", State: mailgrant.MailboxActive}))
	must(t, s.CreateApp(ctx, mailgrant.App{ID: "app_kept", Org: h.org, Name: "cases"}))
	must(t, s.CreateKey(ctx, mailgrant.Key{ID: "key_kept", Org: h.org, App: "app_kept", Hash: []byte("hash"), Scopes: []mailgrant.Scope{mailgrant.ScopeSend}}))
	must(t, s.SaveKeyset(ctx, []byte("keys"), 0))
	sub := h.message()
	sub.ID, sub.App = "msg_kept", "app_kept"
	_, err := s.AcceptSubmission(ctx, store.Acceptance{Submission: sub, Body: []byte("body")})
	must(t, err)
}

func checkKept(t *testing.T, s *store.Store) {
	ctx := t.Context()
	sub, err := s.Submission(ctx, "org_kept", "msg_kept")
	must(t, err)
	body, err := s.Chunk(ctx, "org_kept", "msg_kept", 0)
	must(t, err)
	g, err := s.Grant(ctx, "org_kept", "gra_kept")
	must(t, err)
	k, app, err := s.KeyByHash(ctx, []byte("hash"))
	must(t, err)
	if sub.State != mailgrant.SubmissionReady || string(body) != "body" || g.State != mailgrant.GrantActive || string(g.Sealed) != "sealed" || k.ID != "key_kept" || app.Name != "cases" {
		t.Errorf("read back: %+v, %q, %+v, %+v", sub, body, g, k)
	}
	must(t, s.CancelSubmission(ctx, "org_kept", "msg_kept"))
	h := found(t, s)
	_, err = h.accept(ctx, []byte("b"))
	must(t, err)
	fresh := onSQLite(t)
	if s.Clustered() {
		fresh = onPostgres(t)
	}
	for _, of := range []func(*store.Store) map[string]string{
		func(s *store.Store) map[string]string { m, err := store.Tables(ctx, s); must(t, err); return m },
		func(s *store.Store) map[string]string { m, err := store.Indexes(ctx, s); must(t, err); return m },
	} {
		was, is := of(s), of(fresh)
		for name := range is {
			if was[name] != is[name] {
				t.Errorf("%s is (%s) when migrated, (%s) when new", name, was[name], is[name])
			}
		}
	}
}

func pack(t *testing.T, name string, b []byte) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	must(t, z.Close())
	must(t, os.WriteFile(name, out.Bytes(), 0o644))
}

func unpack(t *testing.T, name string) []byte {
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	b, err := io.ReadAll(z)
	must(t, err)
	return b
}

func TestRE17FirstSchemaIsMigratedSQLite(t *testing.T) {
	name := filepath.Join(t.TempDir(), "mailgrant.db")
	if *update {
		s := open(t, name)
		fill(t, s)
		s.Close()
		b, err := os.ReadFile(name)
		must(t, err)
		pack(t, keptSQLite, b)
	}
	must(t, os.WriteFile(name, unpack(t, keptSQLite), 0o600))
	checkKept(t, open(t, name))
}

func TestRE17FirstSchemaIsMigratedPostgres(t *testing.T) {
	if *update {
		url := real.Postgres(t)
		s := open(t, url)
		fill(t, s)
		s.Close()
		dump, err := exec.Command("pg_dump", "--no-owner", "--inserts", "-d", url).Output()
		must(t, err)
		var sql strings.Builder
		for line := range strings.Lines(string(dump)) {
			if !strings.HasPrefix(line, `\`) && !strings.HasPrefix(line, "--") { // words to psql
				sql.WriteString(line)
			}
		}
		pack(t, keptPostgres, []byte(sql.String()))
	}
	url := real.Postgres(t)
	c, err := pgx.Connect(t.Context(), url)
	must(t, err)
	_, err = c.PgConn().Exec(t.Context(), string(unpack(t, keptPostgres))).ReadAll()
	must(t, err)
	c.Close(t.Context())
	checkKept(t, open(t, url))
}

func TestBackupGoesIntoTheOtherDatabase(t *testing.T) {
	for name, way := range map[string][2]func(*testing.T) *store.Store{"to postgres": {onSQLite, onPostgres}, "to sqlite": {onPostgres, onSQLite}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := way[0](t), way[1](t)
			fill(t, from)
			var b bytes.Buffer
			must(t, from.Backup(t.Context(), &b))
			must(t, to.Restore(t.Context(), bytes.NewReader(b.Bytes()), mailgrant.Finding{Cause: "restored"}, mailgrant.Finding{Cause: "restored"}))
			if sub, err := to.Submission(t.Context(), "org_kept", "msg_kept"); err != nil || !sub.Held || !sub.Duplicate {
				t.Errorf("%+v, %v", sub, err)
			}
			must(t, to.ResumeMailbox(t.Context(), "org_kept", "mbx_kept"))
			last, err := to.LastEvent(t.Context(), "org_kept")
			must(t, err)
			must(t, to.AddEvent(t.Context(), mailgrant.Event{Org: "org_kept", Kind: "after"}))
			now, err := to.LastEvent(t.Context(), "org_kept")
			for end := time.Now().Add(10 * time.Second); now <= last && time.Now().Before(end); { // shown when nothing older is open on the server
				<-time.After(20 * time.Millisecond)
				now, err = to.LastEvent(t.Context(), "org_kept")
			}
			if err != nil || now <= last {
				t.Errorf("events go on at %d after %d, %v", now, last, err)
			}
			checkKept(t, to)
			fresh := way[1](t)
			for at := b.Len() / 4; at < b.Len(); at += b.Len() / 8 { // SE-07
				spoilt := bytes.Clone(b.Bytes())
				spoilt[at] ^= 1
				if bytes.Equal(gunzip(spoilt), gunzip(b.Bytes())) {
					continue // a repetition that now points at another copy of the same text: nothing is lost
				}
				is(t, fresh.Restore(t.Context(), bytes.NewReader(spoilt), mailgrant.Finding{}, mailgrant.Finding{}), mailgrant.Invalid)
			}
		})
	}
}

// A value that is not of its column's sort is damage: PostgreSQL is not asked then,
// which is not the same as that it does not answer.
func TestSE07ValueOfAnotherSortIsDamage(t *testing.T) {
	from, to := onSQLite(t), onPostgres(t)
	fill(t, from)
	var b, spoilt bytes.Buffer
	must(t, from.Backup(t.Context(), &b))
	for _, swap := range [][2]string{{`{"t":"office@contoso.example"}`, `{"n":7}`}, {`{"n":1}`, `{"t":"x"}`}, {`{"b":"a2V5cw=="}`, `{"n":7}`}} {
		spoilt.Reset()
		z := gzip.NewWriter(&spoilt)
		_, err := io.WriteString(z, strings.Replace(string(gunzip(b.Bytes())), swap[0], swap[1], 1))
		must(t, errors.Join(err, z.Close()))
		is(t, to.Restore(t.Context(), &spoilt, mailgrant.Finding{}, mailgrant.Finding{}), mailgrant.Invalid)
	}
	must(t, to.Restore(t.Context(), &b, mailgrant.Finding{}, mailgrant.Finding{}))
}

// gunzip is what a gzip file holds, nil if it is damaged.
func gunzip(b []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		return nil
	}
	return plain
}
