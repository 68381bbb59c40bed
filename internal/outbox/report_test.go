package outbox_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestSM17RefusedMessageBouncesAtTheSMTPDoorOnly(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(_ int, h handed) provider.Outcome {
			if strings.Contains(h.id, "refused") {
				return refused("550 5.1.1 no such user")
			}
			return provider.Outcome{}
		}
		smtp := r.send("refused")
		rest, err := r.accept(r.caller("rest"), to("a@example.net"), message("office@contoso.example", "refused rest"))
		must(t, err)
		null := to("a@example.net")
		null.From = ""
		_, err = r.accept(r.caller("smtp"), null, message("office@contoso.example", "refused null"))
		must(t, err)
		auto := "Auto-Submitted: auto-replied\r\n" + message("office@contoso.example", "refused auto")
		_, err = r.accept(r.caller("smtp"), to("a@example.net"), auto)
		must(t, err)
		synctest.Wait()
		for _, id := range []mailgrant.ID{smtp.ID, rest.ID} {
			if sub := r.wants(id, mailgrant.SubmissionFailed); sub.Finding == nil || sub.Finding.Cause != "recipient-rejected" {
				t.Errorf("finding: %+v", sub.Finding)
			}
		}
		if l := r.events("submission.failed"); len(l) != 4 {
			t.Errorf("%d events", len(l))
		}
		var bounces []handed
		for _, h := range r.far.list() {
			if strings.Contains(h.body, "report-type=delivery-status") {
				bounces = append(bounces, h)
			}
		}
		if len(bounces) != 1 {
			t.Fatalf("%d bounces, want that of the SMTP door\n%s", len(bounces), r.log)
		}
		b := bounces[0]
		if b.to[0] != "office@contoso.example" || !strings.Contains(b.body, "550 5.1.1 no such user") || !strings.Contains(b.body, "Subject: refused") ||
			!strings.Contains(b.body, "Final-Recipient: rfc822;a@example.net") && !strings.Contains(b.body, "Final-Recipient: rfc822; a@example.net") {
			t.Errorf("bounce to %v:\n%s", b.to, b.body)
		}
		if m := r.box(r.global.ID); m.State != mailgrant.MailboxActive {
			t.Errorf("the mailbox is %s for a message's fault", m.State)
		}
	})
}
