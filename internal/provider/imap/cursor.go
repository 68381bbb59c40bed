package imap

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// A place is how far a folder has been read.
type place struct {
	Validity uint32 `json:"v"`
	Epoch    uint32 `json:"e,omitempty"` // how often UIDNEXT went back since
	Next     uint64 `json:"n"`           // the first UID that has not been read; may be 2^32
	Tries    int    `json:"t,omitempty"` // connections lost over the bytes of Next
}

// places are the cursor: one place for each folder, by its name.
type places map[string]place

func readCursor(c provider.Cursor) (places, error) {
	p := places{}
	if c == "" {
		return p, nil
	}
	if err := json.Unmarshal([]byte(c), &p); err != nil {
		return nil, mailgrant.Errorf(mailgrant.Internal, err, "the cursor of the mailbox is not one of IMAP").
			Fix("let the mailbox be read from its beginning again")
	}
	return p, nil
}

func (p places) cursor() provider.Cursor {
	b, err := json.Marshal(p) // in the order of the names
	if err != nil {
		panic(err) // strings and numbers only
	}
	return provider.Cursor(b)
}

// A remote is the name of a message: INBOX/17/42, or INBOX/17~1/42.
type remote struct {
	folder          string
	validity, epoch uint32
	uid             uint32
}

func (at place) remote(folder string, uid uint32) string {
	return remote{folder, at.Validity, at.Epoch, uid}.String()
}

func (r remote) String() string {
	if r.epoch > 0 {
		return fmt.Sprintf("%s/%d~%d/%d", r.folder, r.validity, r.epoch, r.uid)
	}
	return fmt.Sprintf("%s/%d/%d", r.folder, r.validity, r.uid)
}

// readRemote reads such a name from its end: folders have slashes too.
func readRemote(s string) (r remote, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return r, false
	}
	j := strings.LastIndexByte(s[:i], '/')
	if j < 0 {
		return r, false
	}
	validity, epoch, hasEpoch := strings.Cut(s[j+1:i], "~")
	uid, err1 := strconv.ParseUint(s[i+1:], 10, 32)
	v, err2 := strconv.ParseUint(validity, 10, 32)
	e, err3 := uint64(0), error(nil)
	if hasEpoch {
		e, err3 = strconv.ParseUint(epoch, 10, 32)
	}
	if err1 != nil || err2 != nil || err3 != nil || uid == 0 {
		return r, false
	}
	return remote{s[:j], uint32(v), uint32(e), uint32(uid)}, true
}
