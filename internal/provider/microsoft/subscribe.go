package microsoft

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

const (
	// subLife is how long a subscription is to live. Graph allows 10,080 minutes for
	// mail, and older clouds 4,230.
	subLife = 4200 * time.Minute

	// subAhead is how long before its end a subscription is renewed: time enough for
	// a bad day.
	subAhead = subLife / 2

	// subAgain is how long is polled before a subscription that failed is asked for
	// again.
	subAgain = 15 * time.Minute
)

// A subscription is one of Graph's, for one folder.
type subscription struct {
	ID    string    `json:"id"`
	Until time.Time `json:"until"`
	For   string    `json:"for"` // digest of address and secret: a change makes a new one
}

// subscribe sees to it that there is a live subscription for each folder. Where
// there cannot be, the mailbox is polled: that is slower, and no reason not to read
// it.
func (b *inbox) subscribe(ctx context.Context, at *position) {
	if b.bell == nil || time.Now().Before(b.pushAgain) {
		return
	}
	doubted := b.bell.doubts()
	for _, f := range b.folders {
		s, err := b.live(ctx, f, at.Subs[f.id], doubted)
		at.Subs[f.id] = s // one that is gone is forgotten, though there is none in its place
		if err == nil {
			continue
		}
		if doubted || s.ID != "" {
			b.bell.doubtStill()
		}
		if ctx.Err() != nil {
			return
		}
		b.pushed = false
		again := subAgain
		var e *mailgrant.Error
		if errors.As(err, &e) && e.Finding != nil {
			again = max(again, e.Finding.RetryAfter)
		}
		b.pushAgain = time.Now().Add(again)
		b.log.Warn("Graph does not tell of new mail; it is asked instead", "mailbox", b.way.Mailbox.ID, "error", err)
		return
	}
	b.pushed = true
}

// live keeps a subscription alive, or makes one. One that is doubted is renewed, which
// shows whether it is there, and gives it what it may lack.
func (b *inbox) live(ctx context.Context, f place, s subscription, doubted bool) (subscription, error) {
	now, purpose := time.Now(), digest(b.r.Push, b.r.PushSecret, f.id)
	if s.ID == "" || s.For != purpose || !now.Before(s.Until) {
		return b.newSubscription(ctx, f, purpose)
	}
	event := b.bell.hears(s.ID)
	var err error
	switch {
	case event == "subscriptionRemoved":
		b.bell.forget(s.ID)
		return b.newSubscription(ctx, f, purpose)
	case event == "reauthorizationRequired":
		c := b.call("graph-subscribe", "POST", b.root+"/subscriptions/"+url.PathEscape(s.ID)+"/reauthorize")
		err = b.subscriptionCall(ctx, c, http.StatusOK, http.StatusNoContent, http.StatusAccepted)
	case doubted || s.Until.Sub(now) < subAhead:
		until := now.Add(subLife)
		c := withJSON(b.call("graph-subscribe", "PATCH", b.root+"/subscriptions/"+url.PathEscape(s.ID)), map[string]string{"expirationDateTime": stamp(until)})
		if err = b.subscriptionCall(ctx, c, http.StatusOK); err == nil {
			s.Until = until
		}
	}
	if errors.Is(err, errNoSubscription) {
		b.bell.forget(s.ID)
		return b.newSubscription(ctx, f, purpose)
	}
	return s, err
}

var errNoSubscription = errors.New("there is no such subscription")

func (b *inbox) subscriptionCall(ctx context.Context, c wire.Call, want ...int) error {
	ans, err := b.do(ctx, c, nil, want...)
	if ans != nil && ans.Status == http.StatusNotFound {
		return errNoSubscription
	}
	return err
}

// newSubscription asks Graph to tell of what comes into a folder. Graph calls the
// address before it answers, and so the door must be open.
func (b *inbox) newSubscription(ctx context.Context, f place, purpose string) (subscription, error) {
	until := time.Now().Add(subLife)
	c := withJSON(b.call("graph-subscribe", "POST", b.root+"/subscriptions"), map[string]string{
		"changeType":               "created",
		"notificationUrl":          b.r.Push,
		"lifecycleNotificationUrl": b.r.Push,
		"resource":                 b.base[len(b.root)+1:] + "/mailFolders('" + f.id + "')/messages",
		"expirationDateTime":       stamp(until),
		"clientState":              b.r.PushSecret,
	})
	var made struct {
		ID      string    `json:"id"`
		Expires time.Time `json:"expirationDateTime"`
	}
	if _, err := b.do(ctx, c, &made, http.StatusCreated); err != nil {
		return subscription{}, err
	}
	if made.ID == "" {
		return subscription{}, b.strange(c, "the subscription has no id")
	}
	if !made.Expires.IsZero() && made.Expires.Before(until) {
		until = made.Expires
	}
	b.bell.hears(made.ID)
	return subscription{made.ID, until.UTC().Truncate(time.Second), purpose}, nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
