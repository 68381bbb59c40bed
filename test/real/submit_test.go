package real_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/mailgrant/mailgrant/test/real"
)

// A takes is a server that takes everything from who knows the key, but for one
// recipient.
type takes struct {
	from string
	to   []string
	body []byte
}

var errNobody = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "nobody of that name"}

func (s *takes) NewSession(*smtp.Conn) (smtp.Session, error) { return s, nil }
func (s *takes) AuthMechanisms() []string                    { return []string{"PLAIN"} }
func (s *takes) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, key string) error {
		if user == "crm" && key == "mg_key" {
			return nil
		}
		return smtp.ErrAuthFailed
	}), nil
}
func (s *takes) Mail(from string, _ *smtp.MailOptions) error { s.from, s.to = from, nil; return nil }
func (s *takes) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return errNobody
	}
	s.to = append(s.to, to)
	return nil
}
func (s *takes) Data(r io.Reader) (err error) { s.body, err = io.ReadAll(r); return err }
func (s *takes) Reset()                       {}
func (s *takes) Logout() error                { return nil }

func TestSubmitters(t *testing.T) {
	certFile, keyFile := real.Certificate(t)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	back := &takes{}
	s := smtp.NewServer(back)
	s.TLSConfig, s.Domain, s.MaxLineLength = &tls.Config{Certificates: []tls.Certificate{pair}}, "mx.example", 40_000
	served := make(chan error, 2)
	listen := func(implicit bool) real.Door {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		if implicit {
			l = tls.NewListener(l, s.TLSConfig)
		}
		go func() { served <- s.Serve(l) }()
		return real.Door{Address: addr, Implicit: implicit, User: "crm", Key: "mg_key", CAFile: real.CAFile(t)}
	}
	doors := []real.Door{listen(false), listen(true)}
	t.Cleanup(func() { s.Close(); <-served; <-served })
	body := real.Awkward(t)["dots"]
	for name, submit := range real.Submitters {
		for _, d := range doors {
			reply, err := submit(t, d, real.Alex, []string{real.Robin, real.Elsewhere}, body)
			if err != nil || !strings.HasPrefix(reply, "250 ") {
				t.Errorf("%s, implicit TLS %v: %q, %v", name, d.Implicit, reply, err)
				continue
			}
			if back.from != real.Alex || !slices.Equal(back.to, []string{real.Robin, real.Elsewhere}) || !bytes.Equal(back.body, body) {
				t.Errorf("%s: from %s to %v:\n%q", name, back.from, back.to, back.body)
			}
		}
		if reply, err := submit(t, doors[0], real.Alex, []string{"nobody@far.example"}, body); err == nil || !strings.HasPrefix(reply, "550 5.1.1 nobody of") {
			t.Errorf("%s to nobody: %q, %v", name, reply, err)
		}
	}
	bad := doors[0]
	bad.Key = "mg_other"
	for name, submit := range real.Submitters {
		if reply, err := submit(t, bad, real.Alex, []string{real.Robin}, body); err == nil || !strings.HasPrefix(reply, "535") {
			t.Errorf("%s with a wrong key: %q, %v", name, reply, err)
		}
	}
}
