package outbox

import (
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// report is the message that tells the envelope sender which recipients were
// not reached, and why. RFC 3464.
func (o *Outbox) report(by mailgrant.Mailbox, sub mailgrant.Submission, a mailgrant.Attempt, recipients []string, header []byte) []byte {
	r := rfc5322.Report{From: by.Address, To: sub.EnvelopeFrom, Hostname: o.Hostname, ID: string(sub.ID), MessageID: sub.MessageID,
		Subject: sub.Subject, Accepted: sub.AcceptedAt, At: o.now().UTC(), Header: header}
	if o.PublicURL != "" {
		r.Link = strings.TrimSuffix(o.PublicURL, "/") + "/docs"
	}
	for _, to := range recipients {
		r.Failed = append(r.Failed, failureOf(to, a))
	}
	return rfc5322.DSN(r)
}

// failureOf is what an attempt says of one recipient: its own result, or else
// that of the whole.
func failureOf(address string, a mailgrant.Attempt) rfc5322.Failure {
	f := rfc5322.Failure{Address: address, Reply: a.Reply, Finding: a.Finding, Expired: a.Fate == mailgrant.FateLater}
	for _, p := range a.Recipients {
		if p.Address == address {
			f.Reply, f.Expired = p.Reply, p.Fate == mailgrant.FateLater
			if p.Finding != nil {
				f.Finding = p.Finding
			}
		}
	}
	return f
}
