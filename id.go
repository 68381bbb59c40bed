package mailgrant

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"sync"
	"time"
)

// An ID names one thing for ever: a UUIDv7 (RFC 9562 section 5.7) in 26 letters
// and digits behind a prefix that says what it names, such as msg_… or mbx_….
// IDs of one kind sort by the time they were made.
type ID string

// The prefixes of all IDs.
const (
	PrefixOrganization = "org"
	PrefixRegistration = "reg"
	PrefixCredential   = "crd"
	PrefixGrant        = "gra"
	PrefixFlow         = "flw"
	PrefixLink         = "lnk"
	PrefixMailbox      = "mbx"
	PrefixApp          = "app"
	PrefixKey          = "key"
	PrefixSubmission   = "msg"
	PrefixArrival      = "arr"
	PrefixWebhook      = "whk"
	PrefixDelivery     = "dlv"
	PrefixTrace        = "trc"
	PrefixNode         = "nod"
)

// idEncoding keeps byte order in text order.
var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

var idClock struct {
	sync.Mutex
	last uint64 // milliseconds <<12 | counter
}

// NewID makes an ID that sorts after all that this process made before it.
func NewID(prefix string) ID {
	var u [16]byte
	rand.Read(u[:]) // never fails: crypto/rand
	idClock.Lock()
	at := uint64(time.Now().UnixMilli()) << 12
	if at <= idClock.last {
		at = idClock.last + 1
	}
	idClock.last = at
	idClock.Unlock()
	binary.BigEndian.PutUint64(u[:8], (at>>12)<<16|0x7000|at&0x0fff)
	u[8] = u[8]&0x3f | 0x80
	return ID(prefix + "_" + idEncoding.EncodeToString(u[:]))
}

// Is says whether id carries the prefix and has the shape of an ID.
func (id ID) Is(prefix string) bool {
	rest, ok := strings.CutPrefix(string(id), prefix+"_")
	if !ok || len(rest) != 26 {
		return false
	}
	_, err := idEncoding.DecodeString(rest)
	return err == nil
}

// Time is when id was made, zero if id is malformed.
func (id ID) Time() time.Time {
	_, rest, _ := strings.Cut(string(id), "_")
	b, err := idEncoding.DecodeString(rest)
	if err != nil || len(b) != 16 {
		return time.Time{}
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b[:8]) >> 16)).UTC()
}
