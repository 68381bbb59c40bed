package microsoft

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// ReadConfig is what the reader needs besides a way.
type ReadConfig struct {
	Notices *Notices // nil: Graph cannot reach us
	Log     *slog.Logger
}

// Reader is the way to read by Graph.
//
// A delta query lists a folder page by page, and ends in a link that lists what
// came since. A message is its $value, the bytes as they came in, and is known by
// its immutable id, which it keeps when it is moved and which no other one gets:
// so what Graph lists twice, as it may, is taken once, and what it lists as removed
// is of no interest.
//
//	folders/{id}/messages/delta ─nextLink▶ … ─deltaLink▶ wait ─▶ deltaLink …
//	       ▲                                                        │
//	       └──────────────── 410: the link is too old ──────────────┘
//
// Within a page the oldest message comes first; Graph does not say in which order
// its pages come.
func Reader(c ReadConfig) provider.Reader {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return provider.Reader{Name: Name, Folders: folders, Open: func(ctx context.Context, w provider.Way, r provider.Reading) (provider.Inbox, error) {
		a, err := newAPI(w)
		if err != nil {
			return nil, err
		}
		b := &inbox{api: a, r: r, log: c.Log}
		if err := b.resolve(ctx); err != nil {
			return nil, err
		}
		if r.Push != "" && c.Notices != nil {
			b.bell = c.Notices.open(r.PushSecret)
		}
		return b, nil
	}}
}

const (
	// pageMax is how many messages one page lists.
	pageMax = 50

	// pollUsual is how often is asked when nobody said, pollPushed how often where
	// Graph tells by itself: a notice may get lost.
	pollUsual  = time.Minute
	pollPushed = 5 * time.Minute

	// patience is how often a message may fail before it counts as one that Graph
	// does not give. After so many failures in a row no more are asked for now.
	patience = 8
	inARow   = 3

	// bodyGuess is what is expected of a message when no limit is set.
	bodyGuess = 150 << 20
)

// inbox is an open mailbox. Nothing in it is open: connections are the HTTP
// client's.
type inbox struct {
	*api
	r    provider.Reading
	log  *slog.Logger
	bell *bell // rung by notices; nil without

	folders []place
	turn    int // whose page is next

	pushed    bool
	pushAgain time.Time // when a subscription may be asked for again
}

// A place is a folder that is read.
type place struct{ id, name string }

// A position is what a cursor says.
type position struct {
	Links   map[string]string       `json:"links,omitempty"`   // by folder: where to go on
	Subs    map[string]subscription `json:"subs,omitempty"`    // by folder
	Refused map[string]int          `json:"refused,omitempty"` // by message: how often in a row
}

// read makes a position of a cursor. One that cannot be read is the beginning.
func (b *inbox) read(c provider.Cursor) position {
	var old, p position
	if json.Unmarshal([]byte(c), &old) != nil {
		old = position{}
	}
	p = position{Links: map[string]string{}, Subs: map[string]subscription{}, Refused: old.Refused}
	for _, f := range b.folders { // what is read no more is forgotten
		if l := old.Links[f.id]; l != "" {
			p.Links[f.id] = l
		}
		if s, ok := old.Subs[f.id]; ok {
			p.Subs[f.id] = s
		}
	}
	if p.Refused == nil || len(p.Refused) > 4*pageMax { // most of them are not there any more
		p.Refused = map[string]int{}
	}
	return p
}

func (p position) cursor() provider.Cursor {
	b, _ := json.Marshal(p)
	return provider.Cursor(b)
}

// resolve finds the folders, and so proves that the mailbox opens.
func (b *inbox) resolve(ctx context.Context) error {
	names := b.r.Folders
	if len(names) == 0 {
		names = []string{"Inbox"}
	}
	for _, n := range names {
		f, err := b.folder(ctx, n)
		if err != nil {
			return err
		}
		if p := (place{f.ID, n}); !slices.ContainsFunc(b.folders, func(o place) bool { return o.id == p.id }) {
			b.folders = append(b.folders, p)
		}
	}
	return nil
}

func (b *inbox) Next(ctx context.Context, from provider.Cursor, take func(provider.Incoming) error) (provider.Cursor, bool, error) {
	at := b.read(from)
	b.subscribe(ctx, &at) // before reading: what comes in between is told
	f := b.folders[b.turn]
	link := at.Links[f.id]
	if !b.ours(link) { // none yet, or one of another Graph
		link = b.first(f)
	}
	page, err := b.page(ctx, link)
	if tooOld(err) && link != b.first(f) {
		delete(at.Links, f.id)
		page, err = b.page(ctx, b.first(f))
	}
	if err == nil {
		err = b.take(ctx, f, page.Value, &at, take)
	}
	if err != nil {
		return at.cursor(), false, err
	}
	at.Links[f.id] = page.Next
	if page.Next == "" {
		at.Links[f.id] = page.Delta
		b.turn = (b.turn + 1) % len(b.folders)
	}
	return at.cursor(), page.Next != "" || b.turn != 0, nil
}

// first is the link that lists a folder from its beginning, or from Since.
func (b *inbox) first(f place) string {
	q := query("$select", "id,receivedDateTime")
	if !b.r.Since.IsZero() {
		q += "&" + query("$filter", "receivedDateTime ge "+b.r.Since.UTC().Format("2006-01-02T15:04:05Z"))[1:]
	}
	return b.base + "/mailFolders/" + url.PathEscape(f.id) + "/messages/delta" + q
}

// A listed is a message of a page.
type listed struct {
	ID       string          `json:"id"`
	Received time.Time       `json:"receivedDateTime"`
	Removed  json.RawMessage `json:"@removed"`
}

// A deltaPage is an answer to a delta query. It has one of the two links.
type deltaPage struct {
	Value []listed `json:"value"`
	Next  string   `json:"@odata.nextLink"`
	Delta string   `json:"@odata.deltaLink"`
}

func (b *inbox) page(ctx context.Context, link string) (deltaPage, error) {
	var p deltaPage
	c := b.call("graph-read", "GET", link)
	c.Header["Prefer"] = []string{preferID + ", odata.maxpagesize=" + strconv.Itoa(pageMax)}
	if _, err := b.do(ctx, c, &p, http.StatusOK); err != nil {
		return p, err
	}
	switch {
	case p.Next == "" && p.Delta == "", p.Next == link:
		return p, b.strange(c, "it does not say where to go on")
	case p.Next != "" && !b.ours(p.Next), p.Next == "" && !b.ours(p.Delta):
		return p, b.strange(c, "the link to go on with leads elsewhere")
	}
	return p, nil
}

// tooOld says that a link is no more known: the folder is listed anew, and what
// was taken is known.
func tooOld(err error) bool {
	var e *mailgrant.Error
	return errors.As(err, &e) && e.Finding != nil && e.Finding.Cause == "sync-state-expired"
}

// take takes what is new of a page. A message that fails does not stop the others;
// but the page ends in an error then, and is read again: a link cannot be gone
// behind half.
func (b *inbox) take(ctx context.Context, f place, list []listed, at *position, take func(provider.Incoming) error) error {
	ids := make([]string, 0, len(list))
	list = slices.DeleteFunc(list, func(m listed) bool { return m.ID == "" || m.Removed != nil || b.older(m.Received) })
	slices.SortStableFunc(list, func(x, y listed) int { return x.Received.Compare(y.Received) })
	for _, m := range list {
		ids = append(ids, m.ID)
	}
	if len(ids) == 0 {
		return nil
	}
	known, err := b.r.Known(ctx, ids)
	if err != nil {
		return err
	}
	var failed error
	row := 0
	done := map[string]bool{}
	for _, m := range list {
		if known[m.ID] || done[m.ID] {
			continue
		}
		done[m.ID] = true
		in := provider.Incoming{Remote: m.ID, Folder: f.name, ReceivedAt: m.Received}
		doubt, err := b.one(ctx, in, take, at.Refused[m.ID] >= patience-1)
		switch {
		case err != nil:
			return err
		case doubt == nil:
			row = 0
			delete(at.Refused, m.ID)
			continue
		}
		failed = doubt
		at.Refused[m.ID]++
		if row++; row >= inARow {
			return failed
		}
	}
	return failed
}

func (b *inbox) older(at time.Time) bool {
	return !at.IsZero() && at.Before(b.r.Since.Truncate(time.Second))
}

// one takes a message. doubt is why Graph did not give it, where it may another
// time; last says that this was time enough.
func (b *inbox) one(ctx context.Context, in provider.Incoming, take func(provider.Incoming) error, last bool) (doubt, err error) {
	c := b.call("graph-read", "GET", b.base+"/messages/"+url.PathEscape(in.Remote)+"/$value")
	limit := b.r.Max
	if limit <= 0 {
		limit = 1 << 62
	}
	ans, body, err := c.Stream(ctx, min(limit, bodyGuess))
	if err != nil {
		return nil, b.broken(ctx, c, err)
	}
	if body == nil {
		return b.notGiven(c, ans, in, take, last)
	}
	defer body.Close()
	in.Size = max(ans.Size, 0)
	if in.Size > limit {
		return nil, take(in)
	}
	m := &most{r: body, left: limit}
	in.Body = m
	err = take(in)
	switch {
	case m.err == provider.ErrTooLarge && (err == nil || errors.Is(err, provider.ErrTooLarge)):
		in.Size, in.Body = limit+1, nil
		return nil, take(in)
	case m.err != nil && m.err != provider.ErrTooLarge && m.err != io.EOF:
		return nil, b.broken(ctx, c, m.err)
	}
	return nil, err
}

// notGiven is for a message whose bytes Graph refuses.
func (b *inbox) notGiven(c wire.Call, ans *wire.Answer, in provider.Incoming, take func(provider.Incoming) error, last bool) (doubt, err error) {
	why := b.refused(c, ans)
	switch s := ans.Status; {
	case s == http.StatusNotFound && noSuchItem(ans.Body), s == http.StatusGone: // moved away or deleted meanwhile
		return nil, nil
	case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusNotFound, s == http.StatusTooManyRequests, s == http.StatusServiceUnavailable, s/100 == 3:
		return nil, why // it is about the mailbox
	case s >= 500 && !last:
		return why, nil
	}
	in.Err = why
	return nil, take(in)
}

// Wait waits for a notice, and no longer than the time to poll.
func (b *inbox) Wait(ctx context.Context) error {
	poll := b.r.Poll
	if poll <= 0 {
		poll = pollUsual
	}
	if b.pushed {
		poll = max(poll, pollPushed)
	}
	t := time.NewTimer(poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-b.bell.rung():
	case <-t.C:
	}
	return nil
}

func (b *inbox) Pushes() bool { return b.pushed }

// Close leaves the subscription: whoever reads the mailbox next goes on with it,
// and without a reader it ends by itself.
func (b *inbox) Close() error {
	b.bell.close()
	return nil
}

// Done marks, moves or deletes messages. Deleting is what Outlook does with its
// key: the message goes to Deleted Items, and of there it goes for good.
func (b *inbox) Done(ctx context.Context, remotes []string, what mailgrant.AfterRead, moveTo string) error {
	if len(remotes) == 0 {
		return nil
	}
	var to mailFolder
	var err error
	if what == mailgrant.AfterMove {
		if to, err = b.make(ctx, moveTo); err != nil {
			return err
		}
	}
	for _, id := range remotes {
		at := b.base + "/messages/" + url.PathEscape(id)
		var c wire.Call
		want := http.StatusOK
		switch what {
		case mailgrant.AfterMark:
			c = withJSON(b.call("graph-mark", "PATCH", at), map[string]bool{"isRead": true})
		case mailgrant.AfterMove:
			c, want = withJSON(b.call("graph-move", "POST", at+"/move"), map[string]string{"destinationId": to.ID}), http.StatusCreated
		case mailgrant.AfterDelete:
			c, want = b.call("graph-delete", "DELETE", at), http.StatusNoContent
		default:
			return nil
		}
		ans, err := b.do(ctx, c, nil, want, http.StatusOK)
		if err != nil && !(ans != nil && ans.Status == http.StatusNotFound && noSuchItem(ans.Body)) {
			return err
		}
	}
	return nil
}

// digest is a short name for values that are to stay the same.
func digest(values ...string) string {
	h := sha256.New()
	for _, v := range values {
		h.Write([]byte(v))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
