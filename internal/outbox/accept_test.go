package outbox_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/outbox"
)

func TestAwkwardMessagesAreRefusedAtTheDoor(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		good := message("office@contoso.example", "x")
		many := make([]string, 101)
		for i := range many {
			many[i] = fmt.Sprintf("a%d@example.net", i)
		}
		for name, c := range map[string]struct {
			e    outbox.Envelope
			msg  string
			code mailgrant.Code
		}{
			"no recipient":           {to(), good, mailgrant.Invalid},
			"too many recipients":    {to(many...), good, mailgrant.Invalid},
			"no From":                {to("a@example.net"), "To: a@example.net\r\n\r\nx\r\n", mailgrant.Invalid},
			"too large":              {to("a@example.net"), good + strings.Repeat("x", 10<<20), mailgrant.TooLarge},
			"round in circles":       {to("a@example.net"), strings.Repeat("Received: from a\r\n", 100) + good, mailgrant.Invalid},
			"AP-02 From of another":  {to("a@example.net"), message("boss@contoso.example", "x"), mailgrant.NoRoute},
			"AP-02 forged envelope":  {outbox.Envelope{From: "boss@contoso.example", Recipients: []string{"a@example.net"}}, good, mailgrant.Forbidden},
			"AP-02 forged Sender":    {to("a@example.net"), "Sender: boss@contoso.example\r\n" + good, mailgrant.Forbidden},
			"AP-02 forged Resent":    {to("a@example.net"), "Resent-From: boss@contoso.example\r\n" + good, mailgrant.Forbidden},
			"AP-02 a foreign second": {to("a@example.net"), strings.Replace(good, "From: office@contoso.example", "Sender: office@contoso.example\r\nFrom: office@contoso.example, boss@contoso.example", 1), mailgrant.Forbidden},
		} {
			_, err := r.accept(r.caller("smtp"), c.e, c.msg)
			if !errors.Is(err, c.code) {
				t.Errorf("%s: got %v, want %s", name, err, c.code)
			} else if mailgrant.AsError(err).Remedy == "" {
				t.Errorf("%s: no remedy", name)
			}
		}
		synctest.Wait()
		if n := len(r.far.list()); n != 0 {
			t.Errorf("%d were sent", n)
		}
	})
}

// Large bodies go through the store in chunks and come out as they went in.
func TestLargeMessage(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		msg := message("office@contoso.example", "large") + strings.Repeat(strings.Repeat("0123456789", 7)+"\r\n", 40_000)
		sub, err := r.accept(r.caller("smtp"), to("a@example.net"), msg)
		must(t, err)
		synctest.Wait()
		got := r.wants(sub.ID, mailgrant.SubmissionDelivered)
		l := r.far.list()
		if len(l) != 1 || !strings.HasSuffix(l[0].body, msg) || int64(len(l[0].body)) != got.Size {
			t.Errorf("handed over %d bytes, kept %d, came %d", len(l[0].body), got.Size, len(msg))
		}
	})
}

func TestAppsPace(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		c := r.caller("rest")
		c.App.PerMinute = 3
		for range 3 {
			_, err := r.accept(c, to("a@example.net"), message("office@contoso.example", "x"))
			must(t, err)
		}
		time.Sleep(20 * time.Second)
		_, err := r.accept(c, to("a@example.net"), message("office@contoso.example", "x"))
		is(t, err, mailgrant.Limited)
		wait := mailgrant.AsError(err).RetryAfter
		if wait > 40*time.Second || !strings.Contains(mailgrant.AsError(err).Remedy, "try again in "+wait.String()) {
			t.Errorf("told to wait for %v: %q", wait, mailgrant.AsError(err).Remedy)
		}
		if _, err := r.accept(r.caller("rest"), to("a@example.net"), message("office@contoso.example", "x")); err != nil {
			t.Errorf("an app without a limit: %v", err)
		}
		time.Sleep(wait - 2*time.Second)
		_, err = r.accept(c, to("a@example.net"), message("office@contoso.example", "x"))
		is(t, err, mailgrant.Limited)
		time.Sleep(2 * time.Second)
		_, err = r.accept(c, to("a@example.net"), message("office@contoso.example", "x"))
		must(t, err) // when it was told
	})
}

func TestAP07IdempotencyKeyAcrossRestart(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		e := to("a@example.net")
		e.IdempotencyKey = "order-1"
		first, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "one"))
		must(t, err)
		again, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "one"))
		must(t, err)
		r.again()
		after, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "one"))
		must(t, err)
		if again.ID != first.ID || after.ID != first.ID {
			t.Errorf("ids %s, %s, %s", first.ID, again.ID, after.ID)
		}
		_, err = r.accept(r.caller("rest"), e, message("office@contoso.example", "another"))
		is(t, err, mailgrant.Conflict)
		e.Recipients = []string{"b@example.net"}
		_, err = r.accept(r.caller("rest"), e, message("office@contoso.example", "one"))
		is(t, err, mailgrant.Conflict)
		synctest.Wait()
		if n := len(r.far.list()); n != 1 {
			t.Errorf("%d messages were sent", n)
		}
		r.stop()
		time.Sleep(8 * 24 * time.Hour)
		r.again()
		fresh, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "one"))
		must(t, err)
		if fresh.ID == first.ID {
			t.Error("a key is remembered for ever")
		}
	})
}
