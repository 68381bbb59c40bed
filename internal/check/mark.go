package check

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// Marks make and know the mark of a check's own message. It stands in the subject,
// which all providers leave alone, and ends in a MAC of ours over mailbox and time:
// nobody outside can have mail of theirs taken for a check's. R-ME4.
type Marks struct {
	Hash func(purpose, value string) []byte // vault.Vault.Hash; nil: marks that nobody knows again
}

const (
	// beforeMark stands between the rest of the subject and the mark.
	beforeMark = ", mark "

	// markLife is how long a mark counts. A message that comes later is anybody's.
	markLife = 24 * time.Hour

	markHead = 10 // bytes: the time, and what cannot be guessed
	markMAC  = 10
)

var markText = base32.StdEncoding.WithPadding(base32.NoPadding)

// New makes a mark for a message that a mailbox sends to itself.
func (m Marks) New(mailbox mailgrant.ID, now time.Time) string {
	b := make([]byte, markHead+markMAC)
	binary.BigEndian.PutUint32(b, uint32(now.Unix()))
	rand.Read(b[4:])
	if m.Hash != nil {
		copy(b[markHead:], m.mac(mailbox, b[:markHead]))
	}
	return strings.ToLower(markText.EncodeToString(b))
}

func (m Marks) mac(mailbox mailgrant.ID, head []byte) []byte {
	return m.Hash("check mark", string(mailbox)+"\x00"+string(head))[:markMAC]
}

// Own says whether a subject is that of a check's message to this mailbox.
func (m Marks) Own(mailbox mailgrant.ID, subject string, now time.Time) bool {
	i := strings.LastIndex(subject, beforeMark)
	if i < 0 || m.Hash == nil {
		return false
	}
	b, err := markText.DecodeString(strings.ToUpper(strings.TrimSpace(subject[i+len(beforeMark):])))
	if err != nil || len(b) != markHead+markMAC || !hmac.Equal(b[markHead:], m.mac(mailbox, b[:markHead])) {
		return false
	}
	age := now.Sub(time.Unix(int64(binary.BigEndian.Uint32(b)), 0))
	return age > -markLife && age < markLife
}
