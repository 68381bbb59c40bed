// Package certs has the certificate that all doors show.
//
// It comes from files, which are read again when they change, or it is made here
// for the local network: then its SHA-256 fingerprint is what people compare.
// Either way a handshake never waits for the disk for more than a look at two
// file times, and that only every few seconds.
package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailgrant/mailgrant"
)

// Config says where the certificate comes from: CertFile and KeyFile (PEM), or,
// with both empty, one that is made and kept in Dir. Log and Now may be nil.
type Config struct {
	CertFile string
	KeyFile  string
	Dir      string   // private directory of mailgrant
	Names    []string // host names and addresses besides those of this machine
	Log      *slog.Logger
	Now      func() time.Time
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = 3 * time.Second

// alarmAhead is how long before its end a certificate from files is complained
// about. One made here is renewed by then.
const alarmAhead = 14 * 24 * time.Hour

// An Info is what can be shown of the certificate.
type Info struct {
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the certificate: "AB:CD:…"
	Names       []string  `json:"names"`
	NotAfter    time.Time `json:"not_after"`
	Generated   bool      `json:"generated"` // made here; clients cannot know its issuer
	File        string    `json:"file"`
}

// Certs holds the certificate. It is safe for concurrent use.
type Certs struct {
	cfg     Config
	current atomic.Pointer[loaded]
	looked  atomic.Int64 // when the files were last looked at, in nanoseconds
	mu      sync.Mutex   // held while looking
	warned  string       // the last trouble that was logged; guarded by mu
}

type loaded struct {
	cert   tls.Certificate
	stamps [2]stamp
}

// A stamp changes when a file does.
type stamp struct {
	at   time.Time
	size int64
}

// New loads the certificate, or makes the first one.
func New(c Config) (*Certs, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, mailgrant.Errorf(mailgrant.Misset, nil, "a certificate and its key come together, and one of the two files is not set").
			Fix("set both, or neither to have one made for the local network")
	}
	s := &Certs{cfg: c}
	if s.generated() {
		if err := s.ensure(); err != nil {
			return nil, err
		}
	}
	l, err := s.load()
	if err != nil {
		return nil, err
	}
	s.use(l)
	s.looked.Store(c.Now().UnixNano())
	return s, nil
}

func (s *Certs) generated() bool { return s.cfg.CertFile == "" }

func (s *Certs) files() (cert, key string) {
	if s.generated() {
		return s.path(), s.path()
	}
	return s.cfg.CertFile, s.cfg.KeyFile
}

// Certificate is the one for a handshake now.
func (s *Certs) Certificate() *tls.Certificate {
	now := s.cfg.Now()
	if d := now.UnixNano() - s.looked.Load(); d > int64(lookEvery) || d < 0 {
		s.look(now)
	}
	return &s.current.Load().cert
}

// TLS is the configuration of a door with these application protocols. Use one
// for all connections of a door, so that sessions are resumed.
func (s *Certs) TLS(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		CipherSuites:   suites,
		NextProtos:     protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.Certificate(), nil },
	}
}

// suites are those of TLS 1.2 with forward secrecy and authenticated encryption;
// TLS 1.3 has no others. RFC 9325 section 4.2.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// Info is about the certificate in use.
func (s *Certs) Info() Info {
	leaf := s.Certificate().Leaf
	file, _ := s.files()
	info := Info{
		Fingerprint: Fingerprint(leaf.Raw),
		Names:       append([]string(nil), leaf.DNSNames...),
		NotAfter:    leaf.NotAfter,
		Generated:   s.generated(),
		File:        file,
	}
	for _, ip := range leaf.IPAddresses {
		info.Names = append(info.Names, ip.String())
	}
	return info
}

// Fingerprint is the SHA-256 of a certificate the way mail programs show it.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	text := strings.ToUpper(hex.EncodeToString(sum[:]))
	var b strings.Builder
	for i := 0; i < len(text); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(text[i : i+2])
	}
	return b.String()
}

// look loads the files again if they changed. One caller does it while the
// others go on; what does not load leaves the old one in place.
func (s *Certs) look(now time.Time) {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	s.looked.Store(now.UnixNano())
	if s.generated() {
		if err := s.ensure(); err != nil {
			s.warn(err)
			return
		}
	}
	old := s.current.Load()
	if st, err := s.stamps(); err == nil && st == old.stamps {
		s.alarm(old, now)
		return
	}
	l, err := s.load()
	if err != nil {
		s.warn(err)
		return
	}
	s.use(l)
}

func (s *Certs) use(l *loaded) {
	old := s.current.Swap(l)
	s.warned = ""
	if old != nil && string(old.cert.Leaf.Raw) == string(l.cert.Leaf.Raw) {
		return
	}
	s.cfg.Log.Info("certs: certificate in use", "fingerprint", Fingerprint(l.cert.Leaf.Raw), "not_after", l.cert.Leaf.NotAfter)
	s.alarm(l, s.cfg.Now())
}

// alarm complains once about a certificate that ends soon.
func (s *Certs) alarm(l *loaded, now time.Time) {
	if left := l.cert.Leaf.NotAfter.Sub(now); left < alarmAhead && !s.generated() {
		s.warn(mailgrant.Errorf(mailgrant.Misset, nil, "the certificate in %s ends on %s", s.cfg.CertFile, l.cert.Leaf.NotAfter.UTC().Format(time.DateOnly)).
			Fix("put a new one there; it is taken without a restart"))
	}
}

// warn logs a trouble once, until it is another.
func (s *Certs) warn(err error) {
	e := mailgrant.AsError(err)
	if e.Message == s.warned {
		return
	}
	s.warned = e.Message
	s.cfg.Log.Warn("certs: "+e.Message, "remedy", e.Remedy, "cause", e.Cause)
}

// load reads certificate and key as they are now.
func (s *Certs) load() (*loaded, error) {
	certFile, keyFile := s.files()
	st, err := s.stamps() // before reading: a change in between is seen next time
	if err != nil {
		return nil, unreadable(err)
	}
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, unreadable(err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, unreadable(err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "the certificate in %s and the key in %s do not go together", certFile, keyFile).
			Fix("put the PEM of the certificate with its chain there, and the PEM of the key that belongs to it")
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, unreadable(err)
		}
	}
	return &loaded{cert: cert, stamps: st}, nil
}

func (s *Certs) stamps() (st [2]stamp, err error) {
	certFile, keyFile := s.files()
	for i, f := range [...]string{certFile, keyFile} {
		info, err := os.Stat(f)
		if err != nil {
			return st, err
		}
		st[i] = stamp{info.ModTime(), info.Size()}
	}
	return st, nil
}

func unreadable(err error) error {
	e := mailgrant.Errorf(mailgrant.Misset, err, "the certificate cannot be read: %v", err)
	if errors.Is(err, fs.ErrPermission) {
		return e.Fix("let the user that runs mailgrant read the file")
	}
	return e.Fix("check the paths of certificate and key")
}
