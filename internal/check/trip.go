package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// looks are when a message that has not come is looked for in the junk folder, and
// a reader that is not told of mail is sent to look; the last one ends the waiting.
var looks = []time.Duration{time.Second, 4 * time.Second, 15 * time.Second, 40 * time.Second, 75 * time.Second}

const unsent = "no message was sent"

// arrive waits for the message in the mail table. R94.
func (r *run) arrive(ctx context.Context, _ *leg) result {
	if r.sent.IsZero() {
		return result{skip: unsent}
	}
	changed, stop := r.Table.Watch()
	defer stop()
	r.read(ctx)
	for _, at := range looks {
		a, err := r.await(ctx, changed, time.Until(r.sent.Add(at)))
		if err != nil {
			return result{err: err}
		}
		if a != nil {
			r.came = a
			return result{text: fmt.Sprintf("there after %.1f s as %s, %s: applications do not hear of it", time.Since(r.sent).Seconds(), a.ID, a.State)}
		}
		if r.inJunk(ctx) {
			return result{skip: "it came into the junk folder, which is not read"}
		}
		r.read(ctx)
	}
	f := diagnose.Seen("mail-not-arriving", r.facts())
	return result{err: wire.Error(f, nil, "the message was taken by the provider, but has not come within %d s", int(looks[len(looks)-1].Seconds()))}
}

// read has a reader look that nobody tells of mail.
func (r *run) read(ctx context.Context) {
	if s := r.Table.Reader(r.box); !s.Push && s.State != mailgrant.ReaderReading {
		r.Table.Read(ctx, r.box)
	}
}

// await gives the arrival, nil when it has not come within d.
func (r *run) await(ctx context.Context, changed <-chan struct{}, d time.Duration) (*mailgrant.Arrival, error) {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	for {
		a, err := r.Table.Marked(ctx, r.box, r.mark)
		if err == nil {
			return &a, nil
		}
		if !errors.Is(err, mailgrant.NotFound) {
			return nil, err
		}
		if s := r.Table.Reader(r.box); s.State == mailgrant.ReaderHeld && s.Finding != nil && s.Finding.NeedsPerson() {
			return nil, held(s)
		}
		select {
		case <-changed:
		case <-t.C:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// inJunk looks into the junk folder. That it cannot be looked at is no finding: the
// message may come still.
func (r *run) inJunk(ctx context.Context) bool {
	name := r.folder("junk")
	if name == "" {
		return false
	}
	a, err := r.find(ctx, name)
	if err != nil || a == nil {
		return false
	}
	r.came, r.cameIn = a, name
	return true
}

// facts are what a finding of ours says of the case.
func (r *run) facts() diagnose.Failure {
	return diagnose.Failure{Context: map[string]any{"mailbox": r.box.Address, "provider": r.way.Settings.Template}}
}

// from compares the sender that arrived with the one that was sent. Some providers
// put the account's own address there.
func (r *run) from(context.Context, *leg) result {
	if r.came == nil {
		return result{skip: unsent}
	}
	var got []string
	for _, a := range r.came.From {
		got = append(got, a.Address)
		if strings.EqualFold(a.Address, r.box.Address) {
			if a.Name != "" {
				return result{text: fmt.Sprintf("%s, as it was sent; the provider calls it %q", clean(a.Address), clean(a.Name))}
			}
			return result{text: clean(a.Address) + ", as it was sent"}
		}
	}
	facts := r.facts()
	facts.Context["from_address"] = clean(strings.Join(got, ", "))
	f := diagnose.Seen("sender-rewritten", facts)
	return result{err: wire.Error(f, nil, "the message left as %s and arrived as %s", r.box.Address, clean(first(strings.Join(got, ", "), "nobody's")))}
}

// sentFolder looks for a copy of what was sent.
func (r *run) sentFolder(ctx context.Context, _ *leg) result {
	name := r.folder("sent")
	switch {
	case r.sent.IsZero():
		return result{skip: unsent}
	case r.reader.Folders == nil:
		return result{skip: "POP shows only the inbox"}
	case name == "":
		return result{skip: "no folder is known as that of sent mail"}
	}
	for _, wait := range []time.Duration{0, time.Second, 3 * time.Second} { // it may come after the answer
		if pause(ctx, wait) != nil {
			break
		}
		a, err := r.find(ctx, name)
		if err != nil {
			return result{err: err}
		}
		if a != nil {
			return result{text: "a copy is in " + clean(name)}
		}
	}
	return result{text: "no copy is in " + clean(name) + ": the provider keeps none of what leaves by " + r.transport.Name}
}

// authResults says what the receiving provider found of the sender. Only the
// topmost field is its own. ME-06.
func (r *run) authResults(context.Context, *leg) result {
	if r.came == nil {
		return result{skip: unsent}
	}
	_, domain, _ := strings.Cut(strings.ToLower(r.box.Address), "@")
	said := map[string][]string{}
	var words []string
	for _, a := range r.came.AuthResult {
		if !a.Topmost || a.Method != "spf" && a.Method != "dkim" && a.Method != "dmarc" {
			continue
		}
		w := a.Method + "=" + a.Result
		if a.Domain != "" && a.Domain != "none" && a.Method != "dmarc" {
			w += " for " + a.Domain + map[bool]string{true: " (aligned)", false: " (not aligned)"}[aligned(a.Domain, domain)]
		}
		words = append(words, clean(w))
		said[a.Method] = append(said[a.Method], a.Result)
	}
	if len(words) == 0 {
		return result{skip: "the provider says nothing of it"}
	}
	text := strings.Join(words, ", ")
	passed := func(method string) bool { return slices.Contains(said[method], "pass") }
	failed := func(method string) bool {
		return !passed(method) && slices.ContainsFunc(said[method], func(s string) bool { return s == "fail" || s == "softfail" || s == "permerror" })
	}
	if failed("dmarc") || !passed("dmarc") && !passed("dkim") && failed("spf") || !passed("dmarc") && !passed("spf") && failed("dkim") {
		f := diagnose.Seen("sender-domain-unauthenticated", r.facts())
		f.Sentence = "The receiving side says of this message: " + text + "."
		return result{err: wire.Error(f, nil, "%s", text)}
	}
	if !slices.ContainsFunc([]string{"spf", "dkim", "dmarc"}, passed) {
		text += ": mail within the own organisation is not looked at; what others find, a message to another provider shows"
	}
	return result{text: text}
}

// aligned says whether two domains are of one organisation, as far as their names
// say: one is the other, or lies below it.
func aligned(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	return a == b || strings.HasSuffix(a, "."+b) || strings.HasSuffix(b, "."+a)
}

// junk says whether the message was taken for spam.
func (r *run) junk(context.Context, *leg) result {
	if r.came == nil {
		return result{skip: unsent}
	}
	in := r.cameIn
	if j := r.folder("junk"); in == "" && j != "" && strings.EqualFold(r.came.Folder, j) {
		in = j
	}
	if in != "" {
		f := diagnose.Seen("mail-in-junk", r.facts())
		return result{err: wire.Error(f, nil, "the message came into %s", clean(in))}
	}
	return result{text: "it came into " + clean(first(r.came.Folder, "the inbox"))}
}
