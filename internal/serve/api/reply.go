package api

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// send writes a whole answer.
func (c *call) send(status int, kind string, b []byte) {
	h := c.w.Header()
	h["Content-Type"] = []string{kind}
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	c.begun = true
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return
	}
	if len(b) > longAnswer {
		c.hear(len(b))
	}
	if _, err := c.w.Write(b); err != nil {
		c.Log.Debug("an answer was not heard", "trace", c.trace, "err", err)
	}
}

// longAnswer is more than a connection takes without anybody reading.
const longAnswer = 16 << 10

const jsonType = "application/json"

// reply answers with v as JSON, under the route's status.
func (c *call) reply(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return mailgrant.Errorf(mailgrant.Internal, err, "the answer could not be written").Fix("report it with the trace number")
	}
	c.send(c.route.status, jsonType, append(b, '\n'))
	return nil
}

// made answers with a new thing and its address.
func (c *call) made(v any, address string) error {
	c.w.Header().Set("Location", address)
	return c.reply(v)
}

// done answers that there is nothing more to say.
func (c *call) done() error {
	c.begun = true
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// page answers with the part of a list that the query asks for. read gives so many
// at most, in the order of their ids, after one of them; that is the cursor.
func page[T any](c *call, read func(ctx context.Context, org, after mailgrant.ID, limit int) ([]T, error), id func(T) mailgrant.ID) error {
	limit, err := c.q.limit(pageMax)
	if err != nil {
		return err
	}
	after, err := c.cursor()
	if err != nil {
		return err
	}
	some, err := read(c.r.Context(), c.by.Org, mailgrant.ID(after), limit+1) // one more shows whether there is more
	if err != nil {
		return err
	}
	p := client.Page[T]{Items: some}
	if len(some) > limit {
		p.Items = some[:limit]
		p.Next = c.next(string(id(some[limit-1])))
	}
	if p.Items == nil {
		p.Items = []T{}
	}
	return c.reply(p)
}

// A cursor is ours and of this list only: one that was made up, or taken from
// another organization's list, is refused. AP-10.
func (c *call) next(at string) string {
	if at == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(append(c.seal(at), at...))
}

const sealLen = 12

func (c *call) seal(at string) []byte {
	return c.Keeper.Vault.Hash("cursor", string(c.by.Org)+" "+c.route.id+" "+at)[:sealLen]
}

// cursor is where the page begins that is asked for: "" at the beginning.
func (c *call) cursor() (string, error) {
	s := c.q.str("cursor")
	if s == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) <= sealLen || !hmac.Equal(b[:sealLen], c.seal(string(b[sealLen:]))) {
		return "", mailgrant.Errorf(mailgrant.Invalid, err, "the cursor is not one of this list").Fix("take it from the page before").At("cursor")
	}
	return string(b[sealLen:]), nil
}

// accepts says whether the client asks for this type by its name.
func (c *call) accepts(kind string) bool {
	for _, v := range c.r.Header["Accept"] {
		for part := range strings.SplitSeq(v, ",") {
			if t, _, _ := strings.Cut(part, ";"); strings.EqualFold(strings.TrimSpace(t), kind) {
				return true
			}
		}
	}
	return false
}
