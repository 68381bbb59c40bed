// Package mailgrant holds the words of mailgrant: the types every other package
// speaks in, and the one error that crosses package boundaries. It imports the
// standard library only.
//
// An organization has registrations at mail providers. A registration proves
// itself with credentials, and a person's consent to it leaves a grant behind.
// A mailbox sends through a grant. An app hands over submissions with a key of
// its own; a route says which mailbox carries each of them, a lane delivers
// them in order, and every try is recorded as an attempt with a finding.
package mailgrant
