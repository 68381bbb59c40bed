package oauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/mailgrant/mailgrant"
)

// A Credential is how the registration proves itself, opened for one use.
type Credential struct {
	ID        mailgrant.ID
	Kind      mailgrant.CredentialKind
	Secret    mailgrant.Secret // the secret; PEM of key and certificate; Google's JSON key
	TokenFile string           // federated
}

const (
	// assertionLife is how long a client assertion can be used.
	assertionLife = 5 * time.Minute

	// tokenFileMax bounds a file with another issuer's token.
	tokenFileMax = 32 << 10
)

// authenticate adds the proof to a request.
func (c *Client) authenticate(v url.Values, h http.Header) error {
	switch c.Credential.Kind {
	case mailgrant.CredentialSecret:
		c.showSecret(v, h)
		return nil
	case mailgrant.CredentialCertificate:
		assertion, err := c.assertion()
		return showAssertion(v, assertion, err)
	case mailgrant.CredentialFederated:
		assertion, err := c.federated()
		return showAssertion(v, assertion, err)
	}
	return nil // a public client, or a service account that proves itself in the grant
}

// showSecret follows RFC 6749 section 2.3.1: in a header, both parts are form-
// encoded before base64.
func (c *Client) showSecret(v url.Values, h http.Header) {
	if c.Settings.AuthMethod == "client_secret_basic" {
		both := url.QueryEscape(c.ClientID) + ":" + url.QueryEscape(c.Credential.Secret.Reveal())
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(both)))
		return
	}
	v.Set("client_secret", c.Credential.Secret.Reveal())
}

func showAssertion(v url.Values, assertion string, err error) error {
	if err != nil {
		return err
	}
	v.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	v.Set("client_assertion", assertion)
	return nil
}

// assertion signs who we are with the certificate's key: RFC 7523 section 3. The
// audience is what the provider documents, and only that.
func (c *Client) assertion() (string, error) {
	key, cert, err := ReadCertificate(c.Credential.Secret)
	if err != nil {
		return "", err
	}
	audience := c.Settings.TokenEndpoint
	if c.Settings.AssertionAudience == "issuer" && c.Settings.Issuer != "" {
		audience = c.Settings.Issuer
	}
	opts := (&jose.SignerOptions{}).WithType("JWT")
	alg := algorithm(key, c.Settings.AssertionAlg)
	if alg == jose.RS256 && c.Settings.Microsoft() {
		sum := sha1.Sum(cert.Raw) // the name of the certificate, not a signature
		opts.WithHeader("x5t", base64.RawURLEncoding.EncodeToString(sum[:]))
	} else {
		sum := sha256.Sum256(cert.Raw)
		opts.WithHeader("x5t#S256", base64.RawURLEncoding.EncodeToString(sum[:]))
	}
	now := c.now()
	return sign(jose.SigningKey{Algorithm: alg, Key: key}, opts, jwt.Claims{
		Issuer: c.ClientID, Subject: c.ClientID, Audience: jwt.Audience{audience}, ID: rand.Text(),
		NotBefore: jwt.NewNumericDate(now.Add(-30 * time.Second)), IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(assertionLife)),
	})
}

func sign(key jose.SigningKey, opts *jose.SignerOptions, claims ...any) (string, error) {
	s, err := jose.NewSigner(key, opts)
	if err != nil {
		return "", badCertificate(err)
	}
	b := jwt.Signed(s)
	for _, c := range claims {
		b = b.Claims(c)
	}
	text, err := b.Serialize()
	if err != nil {
		return "", badCertificate(err)
	}
	return text, nil
}

// algorithm is the template's for RSA, and the curve's own for the others.
func algorithm(key crypto.Signer, wanted string) jose.SignatureAlgorithm {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if wanted == "RS256" {
			return jose.RS256
		}
		return jose.PS256
	case *ecdsa.PrivateKey:
		switch k.Curve.Params().BitSize {
		case 384:
			return jose.ES384
		case 521:
			return jose.ES512
		}
		return jose.ES256
	}
	return jose.EdDSA
}

// ReadCertificate reads PEM with a private key and its certificate.
func ReadCertificate(text mailgrant.Secret) (crypto.Signer, *x509.Certificate, error) {
	var key crypto.Signer
	var certs []*x509.Certificate
	rest := []byte(text.Reveal())
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, badCertificate(err)
			}
			certs = append(certs, cert)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			k, err := parseKey(block.Bytes)
			if err != nil {
				return nil, nil, badCertificate(err)
			}
			key = k
		}
	}
	if key == nil || len(certs) == 0 {
		return nil, nil, badCertificate(nil)
	}
	for _, cert := range certs {
		if pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && pub.Equal(key.Public()) {
			return key, cert, nil
		}
	}
	return nil, nil, mailgrant.Errorf(mailgrant.Invalid, nil, "the private key does not belong to the certificate").
		Fix("give the key the certificate was made with").At("secret")
}

func badCertificate(err error) error {
	return mailgrant.Errorf(mailgrant.Invalid, err, "this is not a private key with its certificate").
		Fix("give both in PEM form, unencrypted: BEGIN PRIVATE KEY and BEGIN CERTIFICATE").At("secret")
}

func parseKey(der []byte) (crypto.Signer, error) {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if s, ok := k.(crypto.Signer); ok {
			return s, nil
		}
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	k, err := x509.ParseECPrivateKey(der)
	if err != nil {
		return nil, err
	}
	return k, nil
}

// federated reads another issuer's token, anew at each use: whoever renews the
// file does so without telling us.
func (c *Client) federated() (string, error) {
	f, err := os.Open(c.Credential.TokenFile)
	if err != nil {
		return "", badTokenFile(c.Credential.TokenFile, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, tokenFileMax+1))
	text := strings.TrimSpace(string(b))
	if err != nil || len(b) > tokenFileMax || !looksLikeJWT(text) {
		return "", badTokenFile(c.Credential.TokenFile, err)
	}
	return text, nil
}

func badTokenFile(path string, err error) error {
	return mailgrant.Errorf(mailgrant.Misset, err, "the file %s holds no token to show", path).
		Fix("let the workload's identity provider write its JWT there, readable for mailgrant")
}

// looksLikeJWT keeps any other file from being sent to a provider.
func looksLikeJWT(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return false
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[0])
	return err == nil && json.Valid(b) && strings.HasPrefix(string(b), "{")
}

// A serviceKey is what Google lets one download.
type serviceKey struct {
	Type   string `json:"type"`
	Email  string `json:"client_email"`
	KeyID  string `json:"private_key_id"`
	Key    string `json:"private_key"`
	Client string `json:"client_id"`
}

// ReadServiceAccount reads Google's JSON key.
func ReadServiceAccount(text mailgrant.Secret) (email string, key crypto.Signer, keyID string, err error) {
	var k serviceKey
	if err := json.Unmarshal([]byte(text.Reveal()), &k); err != nil || k.Type != "service_account" {
		return "", nil, "", badServiceKey(err)
	}
	block, _ := pem.Decode([]byte(k.Key))
	if block == nil {
		return "", nil, "", badServiceKey(nil)
	}
	if key, err = parseKey(block.Bytes); err != nil {
		return "", nil, "", badServiceKey(err)
	}
	return k.Email, key, k.KeyID, nil
}

func badServiceKey(err error) error {
	return mailgrant.Errorf(mailgrant.Invalid, err, "this is not the JSON key of a service account").
		Fix("download a key of type JSON in the Google Cloud console and give the whole file").At("secret")
}

// serviceAssertion stands in for a user: Google's "OAuth 2.0 for server to server
// applications". The token endpoint of the template is used, not the one in the
// key file, which whoever made the file could have written.
func (c *Client) serviceAssertion(scopes []string, subject string) (string, error) {
	email, key, id, err := ReadServiceAccount(c.Credential.Secret)
	if err != nil {
		return "", err
	}
	now := c.now()
	claims := map[string]any{"iss": email, "scope": strings.Join(scopes, " "), "aud": c.Settings.TokenEndpoint,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	if subject != "" {
		claims["sub"] = subject
	}
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		opts.WithHeader("kid", id)
	}
	return sign(jose.SigningKey{Algorithm: jose.RS256, Key: key}, opts, claims)
}
