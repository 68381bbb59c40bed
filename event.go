package mailgrant

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// An Event is a fact worth telling, kept in order in the event log.
type Event struct {
	Seq     int64           `json:"seq"` // ascends; the cursor
	Org     ID              `json:"org"`
	Kind    string          `json:"kind"` // "submission.delivered", "mailbox.held", "grant.lapsed", …
	At      time.Time       `json:"at"`
	Subject ID              `json:"subject"` // what it is about
	App     ID              `json:"app,omitempty"`
	Mailbox ID              `json:"mailbox,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// eventKinds are all kinds of events. docs/webhooks.md says what each means.
var eventKinds = []string{
	"admin_consent.asked", "admin_consent.denied", "admin_consent.granted",
	"app.changed", "app.created", "app.deleted",
	"arrival.acknowledged", "arrival.ignored", "arrival.new", "arrival.quarantined",
	"credential.created", "credential.deleted",
	"grant.active", "grant.changed", "grant.created", "grant.deleted", "grant.lapsed", "grant.refused", "grant.revoked",
	"key.created", "key.revoked",
	"mailbox.changed", "mailbox.created", "mailbox.deleted", "mailbox.held", "mailbox.resumed", "mailbox.throttled",
	"oauth.callback_rejected",
	"reader.after_failed", "reader.failing", "reader.held", "reader.resumed",
	"registration.changed", "registration.created", "registration.deleted", "registration.refused",
	"submission.accepted", "submission.bounced", "submission.cancelled", "submission.deferred", "submission.delivered",
	"submission.failed", "submission.retried", "submission.uncertain",
	"webhook.blocked", "webhook.changed", "webhook.created", "webhook.dead_letters", "webhook.deleted", "webhook.disabled",
	"webhook.failing", "webhook.recovered", "webhook.replayed", "webhook.rotated",
}

// EventKinds are all kinds that an event can have, sorted.
func EventKinds() []string { return slices.Clone(eventKinds) }

// KindMatches says whether a kind of event fits a pattern: the kind itself, or
// all that begin as "arrival.*" does; "*" is every kind.
func KindMatches(pattern, kind string) bool {
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(kind, begin)
	}
	return pattern == kind
}

// CheckKinds refuses a pattern that fits no kind of event: who waits for what never
// comes would not hear of it. Field is where the patterns were given.
func CheckKinds(field string, patterns []string) error {
	for _, p := range patterns {
		if slices.ContainsFunc(eventKinds, func(kind string) bool { return KindMatches(p, kind) }) {
			continue
		}
		e := Errorf(Invalid, nil, "there are no events of the kind %.60q", p).At(field)
		if near := nearKinds(p); len(near) > 0 {
			return e.Fix("did you mean %s? docs/webhooks.md lists all kinds", strings.Join(near, " or "))
		}
		return e.Fix("write one that docs/webhooks.md lists, such as submission.failed, or arrival.* for all of a sort")
	}
	return nil
}

// nearKinds are the kinds and sorts that are written most like p, if any is.
func nearKinds(p string) (near []string) {
	if len(p) > 60 {
		return nil
	}
	var words []string
	for _, kind := range eventKinds {
		sort, _, _ := strings.Cut(kind, ".")
		words = append(words, kind, sort+".*")
	}
	slices.Sort(words)
	least := max(2, len(p)/3)
	for _, w := range slices.Compact(words) {
		switch d := editDistance(strings.ToLower(p), w); {
		case d < least:
			least, near = d, []string{w}
		case d == least:
			near = append(near, w)
		}
	}
	return near[:min(len(near), 3)]
}

// editDistance is how many letters are to be put in, taken out or changed to make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1) // of the beginnings of b, to what was read of a
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := corner
			if a[i] != b[j] {
				changed++
			}
			corner, row[j+1] = row[j+1], min(changed, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
