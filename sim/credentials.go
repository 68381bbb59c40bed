package sim

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An IssuedCertificate is a certificate with its private key, as an
// administrator would make one and hand it to the app.
type IssuedCertificate struct {
	ID       string    `json:"id"`
	PEM      string    `json:"pem"`
	KeyPEM   string    `json:"key_pem"` // PKCS #8
	X5T      string    `json:"x5t"`
	X5TS256  string    `json:"x5t_s256"`
	NotAfter time.Time `json:"not_after"`
}

// IssueCertificate makes a key and a certificate of it, and registers it with
// an app beside those it has. A life of 0 is a year; a negative one makes a
// certificate that has ended already.
func (s *Sim) IssueCertificate(app string, life time.Duration) (*IssuedCertificate, error) {
	if _, ok := s.world.App(app); !ok {
		return nil, fmt.Errorf("%w app %q", errNotThere, app)
	}
	if life == 0 {
		life = 365 * 24 * time.Hour
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	now := s.Now()
	template := &x509.Certificate{SerialNumber: newSerial(), Subject: pkix.Name{CommonName: app},
		NotBefore: now.Add(-time.Hour + min(life, 0)), NotAfter: now.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyPEM, err := keyToPEM(key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	made := &IssuedCertificate{ID: newGUID(), PEM: string(certToPEM(der)), KeyPEM: string(keyPEM), NotAfter: cert.NotAfter}
	made.X5T, made.X5TS256 = thumbprints(cert)
	return made, s.world.ChangeApp(app, func(a *App) {
		a.Certificates = append(a.Certificates, Certificate{ID: made.ID, PEM: made.PEM})
	})
}

// RemoveCertificate takes a certificate of an app away.
func (s *Sim) RemoveCertificate(app, id string) error {
	found := false
	err := s.world.ChangeApp(app, func(a *App) {
		n := len(a.Certificates)
		a.Certificates = slices.DeleteFunc(a.Certificates, func(c Certificate) bool { return c.ID == id })
		found = len(a.Certificates) < n
	})
	if err == nil && !found {
		return fmt.Errorf("%w certificate %q of app %q", errNotThere, id, app)
	}
	return err
}

// IssueSecret gives an app one more secret. What is empty in it is made: an
// id, a value, and a start now.
func (s *Sim) IssueSecret(app string, secret Secret) (Secret, error) {
	have, ok := s.world.App(app)
	if !ok {
		return secret, fmt.Errorf("%w app %q", errNotThere, app)
	}
	if secret.ID == "" {
		secret.ID = newGUID()
	}
	if secret.Value == "" {
		secret.Value = "sim~" + newSecretText()[:36]
	}
	if secret.Start.IsZero() {
		secret.Start = s.Now()
	}
	if have.hasSecret(secret.ID) {
		return secret, errors.New("the app has a secret with this id")
	}
	return secret, s.world.ChangeApp(app, func(a *App) { a.Secrets = append(a.Secrets, secret) })
}

func (a *App) hasSecret(id string) bool {
	return slices.ContainsFunc(a.Secrets, func(s Secret) bool { return strings.EqualFold(s.ID, id) })
}
