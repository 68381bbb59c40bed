package webhook

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/vault"
)

const (
	secretPrefix = "whsec_"
	secretBytes  = 32
	secretMin    = len(secretPrefix) + 32 // 24 bytes, the least that the standard allows

	// BothFor is how long the secret before signs too after a rotation, where nobody
	// says otherwise; bothMax the longest.
	BothFor = 24 * time.Hour
	bothMax = 30 * 24 * time.Hour

	urlMax   = 2000
	nameMax  = 100
	kindsMax = 100
)

func newSecret() mailgrant.Secret {
	b := make([]byte, secretBytes)
	rand.Read(b) // never fails: crypto/rand
	return mailgrant.NewSecret(secretPrefix + base64.StdEncoding.EncodeToString(b))
}

func (t *Teller) placeOf(w mailgrant.Webhook) vault.Place {
	return vault.Place{Org: w.Org, Table: "webhooks", Column: "secret", Row: w.ID}
}

// target opens the secrets of a webhook.
func (t *Teller) target(ctx context.Context, w mailgrant.Webhook) (target, error) {
	s, err := t.Store.WebhookSecrets(ctx, w.Org, w.ID)
	if err != nil {
		return target{}, err
	}
	to := target{url: w.URL, full: w.Full, both: s.BothUntil}
	sealed := [][]byte{s.Sealed}
	if s.Previous != nil && t.now().Before(s.BothUntil) {
		sealed = append(sealed, s.Previous)
	}
	for _, b := range sealed {
		plain, err := t.Vault.Open(t.placeOf(w), b)
		if err != nil {
			return target{}, err
		}
		to.secrets = append(to.secrets, mailgrant.NewSecret(string(plain)))
	}
	to.signers, err = signersOf(to.secrets)
	return to, err
}

// Create makes a webhook, and gives its secret this once.
func (t *Teller) Create(ctx context.Context, w mailgrant.Webhook) (mailgrant.Webhook, mailgrant.Secret, error) {
	w.ID = mailgrant.NewID(mailgrant.PrefixWebhook)
	w.CreatedAt = t.now().UTC().Truncate(time.Microsecond)
	w.UpdatedAt = w.CreatedAt
	if err := t.check(ctx, &w, mailgrant.Webhook{}); err != nil {
		return w, mailgrant.Secret{}, err
	}
	secret := newSecret()
	sealed, err := t.Vault.Seal(t.placeOf(w), []byte(secret.Reveal()))
	if err != nil {
		return w, mailgrant.Secret{}, err
	}
	if err := t.Store.CreateWebhook(ctx, w, sealed); err != nil {
		return w, mailgrant.Secret{}, err
	}
	t.Look(w.Org, w.ID)
	w, err = t.Store.Webhook(ctx, w.Org, w.ID)
	return w, secret, err
}

// Update changes the settings of a webhook, and whether it is switched off.
func (t *Teller) Update(ctx context.Context, w mailgrant.Webhook) (mailgrant.Webhook, error) {
	w.UpdatedAt = t.now().UTC().Truncate(time.Microsecond)
	was, err := t.Store.Webhook(ctx, w.Org, w.ID)
	if err != nil {
		return w, err
	}
	if err := t.check(ctx, &w, was); err != nil {
		return w, err
	}
	if err := t.Store.UpdateWebhook(ctx, w); err != nil {
		return w, err
	}
	t.Look(w.Org, w.ID)
	return t.Store.Webhook(ctx, w.Org, w.ID)
}

// Delete removes a webhook and all that waits for it.
func (t *Teller) Delete(ctx context.Context, org, id mailgrant.ID) error {
	if err := t.Store.DeleteWebhook(ctx, org, id); err != nil {
		return err
	}
	t.Look(org, id)
	return nil
}

// Rotate gives a webhook a new secret. For a while the one before signs too.
func (t *Teller) Rotate(ctx context.Context, org, id mailgrant.ID, both time.Duration) (mailgrant.Webhook, mailgrant.Secret, error) {
	if both < 0 || both > bothMax {
		return mailgrant.Webhook{}, mailgrant.Secret{}, mailgrant.Errorf(mailgrant.Invalid, nil, "two secrets cannot sign for %v", both).
			Fix("let both sign for 0 to %d hours; 24 is usual", int(bothMax.Hours())).At("both_for")
	}
	w, err := t.Store.Webhook(ctx, org, id)
	if err != nil {
		return w, mailgrant.Secret{}, err
	}
	secret := newSecret()
	sealed, err := t.Vault.Seal(t.placeOf(w), []byte(secret.Reveal()))
	if err != nil {
		return w, mailgrant.Secret{}, err
	}
	if err := t.Store.RotateWebhook(ctx, org, id, sealed, t.now().Add(both)); err != nil {
		return w, mailgrant.Secret{}, err
	}
	t.Look(org, id)
	w, err = t.Store.Webhook(ctx, org, id)
	return w, secret, err
}

// Test posts an event of the kind webhook.test, beside all others, and says what
// came of it.
func (t *Teller) Test(ctx context.Context, org, id mailgrant.ID) (mailgrant.Delivery, error) {
	w, err := t.Store.Webhook(ctx, org, id)
	if err != nil {
		return mailgrant.Delivery{}, err
	}
	to, err := t.target(ctx, w)
	if err != nil {
		return mailgrant.Delivery{}, err
	}
	e := mailgrant.Event{Org: org, Kind: "webhook.test", At: t.now().UTC(), Subject: id, App: w.App}
	d := mailgrant.Delivery{ID: mailgrant.NewID(mailgrant.PrefixDelivery), Org: org, Webhook: id, Kind: e.Kind, N: 1, State: mailgrant.DeliveryTaken}
	out := t.post(ctx, to, d.ID, e)
	d.At, d.Took, d.Status, d.Answer, d.Error = out.at, out.took, out.status, out.answer, out.err
	if !out.taken() {
		d.State = mailgrant.DeliveryRefused
	}
	if out.blocked { // as with any other event
		if err := t.Store.AddEvent(ctx, eventOf(org, id, "webhook.blocked", map[string]string{"host": hostOf(w.URL)})); err != nil {
			return d, err
		}
	}
	return d, t.Store.AddDelivery(ctx, d)
}

// check sees to it that the settings of a webhook can work. The URL and kinds that it
// has already are left alone: when the rules change, it can still be switched off.
func (t *Teller) check(ctx context.Context, w *mailgrant.Webhook, was mailgrant.Webhook) error {
	invalid := func(at, fix, format string, args ...any) error {
		return mailgrant.Errorf(mailgrant.Invalid, nil, format, args...).Fix("%s", fix).At(at)
	}
	w.Name = strings.TrimSpace(w.Name)
	if w.Name == "" || len(w.Name) > nameMax || strings.ContainsFunc(w.Name, func(r rune) bool { return r < ' ' || r == 0x7f }) || mailgrant.ID(w.Name).Is(mailgrant.PrefixWebhook) {
		return invalid("name", "give it one line of up to 100 letters, such as cases", "the webhook has no name that can be used")
	}
	if was.ID == "" || w.URL != was.URL {
		if err := t.checkURL(w.URL); err != nil {
			return err
		}
	}
	if len(w.Kinds) > kindsMax {
		return invalid("kinds", "use patterns such as arrival.*", "more than %d kinds of events are named", kindsMax)
	}
	fresh := slices.DeleteFunc(slices.Clone(w.Kinds), func(k string) bool { return slices.Contains(was.Kinds, k) })
	if err := mailgrant.CheckKinds("kinds", fresh); err != nil {
		return err
	}
	if w.Connections < 0 || w.Connections > connectionsMax {
		return invalid("connections", "leave it out for 4", "a webhook has 1 to %d connections", connectionsMax)
	}
	for _, id := range w.Mailboxes {
		if _, err := t.Store.Mailbox(ctx, w.Org, id); err != nil {
			return err
		}
	}
	if w.App != "" {
		if _, err := t.Store.App(ctx, w.Org, w.App); err != nil {
			return err
		}
	}
	slices.Sort(w.Kinds)
	w.Kinds = slices.Compact(w.Kinds)
	return nil
}

func (t *Teller) checkURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Fragment != "" || len(address) > urlMax || u.Scheme != "http" && u.Scheme != "https" {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the URL of the webhook is none that can be posted to").Fix("write it like https://app.example.com/hooks/mail").At("url")
	}
	if t.May == nil {
		return nil
	}
	if err := t.May(u); err != nil {
		if u.Scheme == "http" {
			return mailgrant.Errorf(mailgrant.Invalid, err, "the URL of the webhook is not https").
				Fix("use https; a server on your own network may speak http once its host:port is in egress.allow").At("url")
		}
		e := *mailgrant.AsError(err)
		e.Code, e.Field = mailgrant.Invalid, "url"
		return &e
	}
	return nil
}
