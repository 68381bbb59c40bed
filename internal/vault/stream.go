package vault

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/mailgrant/mailgrant"
)

// stanzaType marks an age file whose key only a master key opens.
const stanzaType = "mailgrant-master"

var adStream = []byte("mailgrant stream")

// masterStanza wraps the key of an age file with a master key. It is both the
// recipient and the identity: age.Recipient, age.Identity.
type masterStanza struct{ master tink.AEAD }

// Wrap implements age.Recipient.
func (m masterStanza) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	b, err := m.master.Encrypt(fileKey, adStream)
	if err != nil {
		return nil, err
	}
	return []*age.Stanza{{Type: stanzaType, Body: b}}, nil
}

// Unwrap implements age.Identity.
func (m masterStanza) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if s.Type == stanzaType {
			return m.master.Decrypt(s.Body, adStream)
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// SealStream encrypts what is written to it into w, in the age format under the
// master key. Close ends it; without that it does not open.
func SealStream(master tink.AEAD, w io.Writer) (io.WriteCloser, error) {
	out, err := age.Encrypt(w, masterStanza{master})
	if err != nil {
		return nil, fmt.Errorf("seal a stream: %w", err)
	}
	return out, nil
}

// OpenStream reads what SealStream wrote. A stream that was cut or altered ends
// in an error before its last byte.
func OpenStream(master tink.AEAD, r io.Reader) (io.Reader, error) {
	in, err := age.Decrypt(r, masterStanza{master})
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, wrongMaster(err)
	case err != nil:
		return nil, mailgrant.Errorf(mailgrant.Invalid, err, "this is no sealed backup, it is damaged, or another master key sealed it").
			Fix("give the master key of the installation that wrote it, and an undamaged file")
	}
	return in, nil
}
