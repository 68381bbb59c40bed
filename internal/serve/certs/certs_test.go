package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/serve/certs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that the test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func generate(t *testing.T, dir string, c *clock, names ...string) *certs.Certs {
	t.Helper()
	s, err := certs.New(certs.Config{Dir: dir, Names: names, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGeneratedIsKeptPrivateAndUsedAgain(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "tls"), &clock{time.Now()}
	a := generate(t, dir, c, "mail.example.com", "192.0.2.7").Info()
	if !a.Generated || len(a.Fingerprint) != 95 || strings.Count(a.Fingerprint, ":") != 31 {
		t.Errorf("info is %+v, want a generated certificate with a SHA-256 fingerprint", a)
	}
	for _, want := range []string{"localhost", "127.0.0.1", "mail.example.com", "192.0.2.7"} {
		if !strings.Contains(strings.Join(a.Names, " ")+" ", want+" ") {
			t.Errorf("the certificate is for %v, %s is missing", a.Names, want)
		}
	}
	st, err := os.Stat(a.File)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v (%v), want 0600", st.Mode(), err)
	}
	if b := generate(t, dir, c, "mail.example.com").Info(); b.Fingerprint != a.Fingerprint {
		t.Errorf("a restart made another certificate: %s, then %s", a.Fingerprint, b.Fingerprint)
	}
	if b := generate(t, dir, c, "other.example.com").Info(); b.Fingerprint == a.Fingerprint {
		t.Error("a new name did not make a new certificate")
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(left) != 1 {
		t.Errorf("files left: %v, want one", left)
	}
}

func TestGeneratedIsRenewedBeforeItEnds(t *testing.T) {
	c := &clock{time.Now()}
	s := generate(t, t.TempDir(), c)
	first := s.Info()
	c.t = first.NotAfter.Add(-29 * 24 * time.Hour)
	second := s.Info()
	if second.Fingerprint == first.Fingerprint || !second.NotAfter.After(first.NotAfter) {
		t.Errorf("29 days before its end the certificate is still %s until %s", second.Fingerprint, second.NotAfter)
	}
}

func TestGeneratedDoesNotReplaceAForeignFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "certificate.pem")
	os.WriteFile(file, []byte("not mine"), 0o600)
	_, err := certs.New(certs.Config{Dir: dir})
	if !errors.Is(err, mailgrant.Misset) || mailgrant.AsError(err).Remedy == "" {
		t.Errorf("err = %v, want misset with a remedy", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "not mine" {
		t.Error("the file was overwritten")
	}
}

// pair writes a certificate and its key as two files.
func pair(t *testing.T, dir, cert, key string) {
	t.Helper()
	made := generate(t, t.TempDir(), &clock{time.Now()}).Info()
	b, err := os.ReadFile(made.File)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(b), "-----BEGIN PRIVATE KEY")
	os.WriteFile(filepath.Join(dir, cert), b[:i], 0o600)
	os.WriteFile(filepath.Join(dir, key), b[i:], 0o600)
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	dir, c := t.TempDir(), &clock{time.Now()}
	pair(t, dir, "c.pem", "k.pem")
	var log strings.Builder
	s, err := certs.New(certs.Config{CertFile: filepath.Join(dir, "c.pem"), KeyFile: filepath.Join(dir, "k.pem"), Now: c.now,
		Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	first := s.Info().Fingerprint

	os.WriteFile(filepath.Join(dir, "c.pem"), []byte("half a certificate"), 0o600)
	c.t = c.t.Add(time.Second)
	if s.Info().Fingerprint != first {
		t.Error("looked again within a second")
	}
	for range 3 {
		c.t = c.t.Add(4 * time.Second)
		if s.Info().Fingerprint != first {
			t.Error("a broken file took the good certificate away")
		}
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings of one broken file, want 1:\n%s", n, log.String())
	}

	pair(t, dir, "c.pem", "k.pem")
	c.t = c.t.Add(4 * time.Second)
	if s.Info().Fingerprint == first {
		t.Error("the new certificate was not taken")
	}
}

func TestSM18_AlarmBeforeTheEndOfACertificateFromFiles(t *testing.T) {
	dir, c := t.TempDir(), &clock{time.Now()}
	pair(t, dir, "c.pem", "k.pem")
	var log strings.Builder
	s, err := certs.New(certs.Config{CertFile: filepath.Join(dir, "c.pem"), KeyFile: filepath.Join(dir, "k.pem"), Now: c.now,
		Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	c.t = s.Info().NotAfter.Add(-13 * 24 * time.Hour)
	s.Certificate()
	if !strings.Contains(log.String(), "ends on") {
		t.Errorf("13 days before its end nothing is said:\n%s", log.String())
	}
}

func TestFilesComeInPairs(t *testing.T) {
	for _, cfg := range []certs.Config{{CertFile: "c.pem"}, {KeyFile: "k.pem"}, {CertFile: "/nowhere/c.pem", KeyFile: "/nowhere/k.pem"}} {
		if _, err := certs.New(cfg); !errors.Is(err, mailgrant.Misset) || mailgrant.AsError(err).Remedy == "" {
			t.Errorf("%+v: err = %v, want misset with a remedy", cfg, err)
		}
	}
}

func TestSM18_NothingBelowTLS12(t *testing.T) {
	s := generate(t, t.TempDir(), &clock{time.Now()})
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate().Leaf)
	for _, test := range []struct {
		version uint16
		suite   uint16
		ok      bool
	}{
		{version: tls.VersionTLS10}, {version: tls.VersionTLS11},
		{version: tls.VersionTLS12, ok: true}, {version: tls.VersionTLS13, ok: true},
		{version: tls.VersionTLS12, suite: tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA},
		{version: tls.VersionTLS12, suite: tls.TLS_RSA_WITH_AES_128_GCM_SHA256},
	} {
		client := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: test.version, MaxVersion: test.version}
		if test.suite != 0 {
			client.CipherSuites = []uint16{test.suite}
		}
		a, b := net.Pipe()
		done := make(chan error, 1)
		go func() { defer b.Close(); done <- tls.Server(b, s.TLS()).Handshake() }()
		err := tls.Client(a, client).Handshake()
		a.Close()
		<-done
		if (err == nil) != test.ok {
			t.Errorf("TLS %x suite %x: err = %v, want success = %v", test.version, test.suite, err, test.ok)
		}
	}
}

func BenchmarkCertificate(b *testing.B) {
	s, err := certs.New(certs.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.Certificate()
	}
}
