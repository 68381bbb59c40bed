package grant

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
)

// A NewCredential is a way for a registration to prove itself, as a person enters
// it.
type NewCredential struct {
	Kind        mailgrant.CredentialKind // "" = secret
	Secret      mailgrant.Secret         // the secret; PEM of key and certificate; Google's JSON key
	TokenFile   string                   // federated
	Description string
	NotBefore   *time.Time
	NotAfter    *time.Time // of a certificate: its own end
}

// A CredentialStore keeps credentials. *store.Store is one.
type CredentialStore interface {
	CreateCredential(ctx context.Context, c mailgrant.Credential) error
}

const (
	hashCredential = "credential fingerprint"

	secretMax      = 4 << 10   // bytes of a secret
	certificateMax = 256 << 10 // bytes of a certificate with its chain, or of a key file
	descriptionMax = 200
)

// AddCredential gives a registration one more way to prove itself, sealed. What
// cannot be one is refused here, where the person who pasted it still looks. The
// others stay, so that a renewal has no gap. R157.
func (k *Keeper) AddCredential(ctx context.Context, into CredentialStore, r mailgrant.Registration, n NewCredential) (mailgrant.Credential, error) {
	c := mailgrant.Credential{ID: mailgrant.NewID(mailgrant.PrefixCredential), Org: r.Org, Registration: r.ID, Kind: n.Kind, TokenFile: n.TokenFile,
		Description: strings.TrimSpace(n.Description), NotBefore: n.NotBefore, NotAfter: n.NotAfter, CreatedAt: k.Now().UTC()}
	if c.Kind == "" {
		c.Kind = mailgrant.CredentialSecret
	}
	if err := k.examineCredential(r, &c, n.Secret); err != nil {
		return mailgrant.Credential{}, err
	}
	if !n.Secret.IsZero() {
		var err error
		if c.Sealed, err = k.Vault.Seal(placeOfCredential(c), []byte(n.Secret.Reveal())); err != nil {
			return mailgrant.Credential{}, err
		}
	}
	if err := into.CreateCredential(ctx, c); err != nil {
		return mailgrant.Credential{}, err
	}
	k.rests.Delete(r.ID) // the provider may think otherwise now
	return c, nil
}

// examineCredential checks c and adds what its secret tells about it.
func (k *Keeper) examineCredential(r mailgrant.Registration, c *mailgrant.Credential, secret mailgrant.Secret) error {
	if len(c.Description) > descriptionMax || strings.ContainsFunc(c.Description, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return badCredential("description", "the description is one line of up to %d letters", descriptionMax).Fix("make it shorter")
	}
	wants := c.Kind != mailgrant.CredentialFederated && c.Kind != mailgrant.CredentialNone
	switch {
	case wants && secret.IsZero():
		return badCredential("secret", "there is no secret").Fix("give the value that the provider showed once")
	case !wants && !secret.IsZero():
		return badCredential("secret", "a credential of the kind %s has no secret", c.Kind).Fix("leave it out, or choose another kind")
	case len(secret.Reveal()) > certificateMax:
		return badCredential("secret", "the secret is larger than %d KiB", certificateMax>>10).Fix("give the key and its certificate only")
	case c.TokenFile != "" && c.Kind != mailgrant.CredentialFederated:
		return badCredential("token_file", "only a federated credential has a token file").Fix("leave it out, or choose the kind federated")
	}
	if err := k.examineKind(r, c, secret); err != nil {
		return err
	}
	switch {
	case c.NotAfter != nil && !c.NotAfter.After(k.Now()):
		return badCredential("not_after", "this credential ended on %s", c.NotAfter.UTC().Format(time.DateOnly)).Fix("make a new one at the provider")
	case c.NotAfter != nil && c.NotBefore != nil && !c.NotAfter.After(*c.NotBefore):
		return badCredential("not_after", "this credential would end before it begins").Fix("correct the dates")
	}
	return nil
}

func (k *Keeper) examineKind(r mailgrant.Registration, c *mailgrant.Credential, secret mailgrant.Secret) error {
	switch c.Kind {
	case mailgrant.CredentialSecret:
		if err := looksLikeSecret(r, secret.Reveal()); err != nil {
			return err
		}
		c.Fingerprint = k.fingerprint(secret)
	case mailgrant.CredentialCertificate:
		_, cert, err := oauth.ReadCertificate(secret)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(cert.Raw)
		c.Fingerprint = base64.RawURLEncoding.EncodeToString(sum[:])
		c.NotBefore, c.NotAfter = &cert.NotBefore, &cert.NotAfter
	case mailgrant.CredentialServiceAccount:
		if _, _, _, err := oauth.ReadServiceAccount(secret); err != nil {
			return err
		}
		c.Fingerprint = k.fingerprint(secret)
	case mailgrant.CredentialFederated:
		if !filepath.IsAbs(c.TokenFile) || filepath.Clean(c.TokenFile) != c.TokenFile {
			return badCredential("token_file", "a federated credential needs the whole path of a file on the server").
				Fix("name the file that the workload's identity provider writes, like /var/run/secrets/token")
		}
	case mailgrant.CredentialNone:
	default:
		return badCredential("kind", "there is no such kind of credential").Fix("use secret, certificate, federated, service_account or none")
	}
	return nil
}

// fingerprint tells two secrets apart and says nothing else about them.
func (k *Keeper) fingerprint(secret mailgrant.Secret) string {
	return hex.EncodeToString(k.Vault.Hash(hashCredential, secret.Reveal()))[:8]
}

// looksLikeSecret finds what people paste instead of a secret's value: most of
// all its ID, which stands right beside it at Microsoft. E16.
func looksLikeSecret(r mailgrant.Registration, s string) error {
	t, _ := provider.Lookup(r.Template)
	switch {
	case strings.Contains(s, "-----BEGIN"):
		return badCredential("secret", "this is PEM, not a client secret").Fix("choose the kind certificate")
	case strings.HasPrefix(strings.TrimSpace(s), "{"):
		return badCredential("secret", "this is JSON, not a client secret").Fix("choose the kind service_account, or copy only the secret's value out of it")
	case t.Settings.Microsoft() && provider.IsGUID(strings.TrimSpace(s)):
		return badCredential("secret", "this looks like the Secret ID, not the secret").
			Fix("copy the column Value, which Microsoft shows only right after the secret is made; if it is gone, make a new secret")
	case len(s) > secretMax:
		return badCredential("secret", "a client secret has at most %d letters", secretMax).Fix("copy it again")
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return badCredential("secret", "the secret has blanks, line breaks or letters that no secret has").Fix("copy it again, with nothing around it")
	}
	return nil
}

func badCredential(field, format string, args ...any) *mailgrant.Error {
	return mailgrant.Errorf(mailgrant.Invalid, nil, format, args...).At(field)
}
