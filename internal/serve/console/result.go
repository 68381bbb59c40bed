package console

import (
	"bytes"
	"compress/flate"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// An outcome is what came of a trip to the provider, as its page shows it.
type outcome struct {
	Admin    bool     `json:"a,omitempty"` // it was an administrator's approval
	ByPerson bool     `json:"b,omitempty"` // an approval after which a person still signs in
	Active   bool     `json:"c,omitempty"` // an approval after which the app's grant works
	Shared   bool     `json:"s,omitempty"`
	Mailbox  string   `json:"m,omitempty"`
	SignedIn string   `json:"u,omitempty"`
	Provider string   `json:"p,omitempty"`
	RevokeAt string   `json:"r,omitempty"`
	Rights   []string `json:"w,omitempty"`
	Scopes   []string `json:"o,omitempty"`
	ReturnTo string   `json:"t,omitempty"`

	Code    mailgrant.Code     `json:"e,omitempty"` // "" is success
	Finding *mailgrant.Finding `json:"f,omitempty"`
	Trace   mailgrant.ID       `json:"n,omitempty"`
	Link    string             `json:"l,omitempty"` // to begin again

	Approval     string `json:"v,omitempty"` // a link for an administrator
	Registration string `json:"g,omitempty"`

	Until time.Time `json:"x"`
}

// aPerson stands in a provider's settings before the place for people, behind the
// one for administrators.
const aPerson = "; a person: "

// RevokeSelf is where a person takes a consent back.
func (o outcome) RevokeSelf() string {
	if _, self, ok := strings.Cut(o.RevokeAt, aPerson); ok {
		return self
	}
	return o.RevokeAt
}

// RevokeAdmin is where an administrator does.
func (o outcome) RevokeAdmin() string {
	admin, _, _ := strings.Cut(o.RevokeAt, aPerson)
	return admin
}

// resultLife is how long the page can be loaded again.
const resultLife = 15 * time.Minute

// cookieSize is what every browser takes, name and attributes left out.
const cookieSize = 3800

var resultID = regexp.MustCompile(`^[A-Z2-7]{26}$`)

func placeOfResult(id string) vault.Place {
	return vault.Place{Table: "browser", Column: "result", Row: mailgrant.ID(id)}
}

// failed writes a failure down under a trace number, and says it as an outcome.
func (s *console) failed(r *http.Request, doing string, err error) outcome {
	return s.failedWith(r, outcome{}, doing, err)
}

func (s *console) failedWith(r *http.Request, o outcome, doing string, err error) outcome {
	e := mailgrant.AsError(err)
	o.Code, o.Trace = e.Code, traceOf(r)
	f := mailgrant.Finding{Sentence: sentence(e.Message), Remedy: sentence(e.Remedy), Who: mailgrant.WhoOperator}
	if e.Code == mailgrant.Invalid || e.Code == mailgrant.NotFound || e.Code == mailgrant.Conflict {
		f.Who = mailgrant.WhoMailboxOwner
	}
	if e.Code.Temporary() {
		f.Who = mailgrant.WhoNobody
	}
	if e.Finding != nil {
		f = *e.Finding
	}
	o.Finding = &f
	s.Log.Warn("a consent did not come about", "doing", doing, "trace", o.Trace, "registration", registrationOf(r), "code", e.Code, "cause", f.Cause, "err", err)
	return o
}

// finish sends the browser to the page of an outcome, or back to who asked. The
// address with the code in it is never a page, so it stays in no history. OA-27.
func (s *console) finish(w http.ResponseWriter, r *http.Request, o outcome) {
	if o.Code == "" {
		s.setCookie(w, linkCookie, "", s.base+"/oauth/", -time.Second)
		if o.ReturnTo != "" {
			s.away(w, o.ReturnTo)
			return
		}
	} else {
		o.Link = s.linkAgain(r, o.Mailbox)
	}
	id := rand.Text()
	value, err := s.sealOutcome(id, o)
	if err != nil {
		s.rejected(w, r, err)
		return
	}
	at := s.base + "/oauth/result/" + id
	s.setCookie(w, resultCookie, value, at, resultLife)
	s.away(w, at)
}

// away leads to an address that the keeper let through, or that we made.
func (s *console) away(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

// sealOutcome packs an outcome into a cookie. What is too long loses what the
// page of its cause says as well.
func (s *console) sealOutcome(id string, o outcome) (string, error) {
	o.Until = time.Now().Add(resultLife)
	for _, drop := range []func(){func() {}, func() { o.Finding.Raw = "" }, func() { o.Finding.Steps = nil }, func() { o.Scopes = nil }} {
		if o.Finding != nil {
			f := *o.Finding
			o.Finding = &f
		} else {
			o.Finding = &mailgrant.Finding{}
		}
		drop()
		plain, err := json.Marshal(o)
		if err != nil {
			return "", err
		}
		var b bytes.Buffer
		z, _ := flate.NewWriter(&b, flate.BestCompression) // the level is a good one
		z.Write(plain)
		z.Close()
		sealed, err := s.Keeper.Vault.Seal(placeOfResult(id), b.Bytes())
		if err != nil {
			return "", err
		}
		if text := base64.RawURLEncoding.EncodeToString(sealed); len(text) <= cookieSize {
			return text, nil
		}
	}
	return "", mailgrant.Errorf(mailgrant.Internal, nil, "what came of the consent is too long to show").Fix("look for the trace number in the log")
}

func (s *console) openOutcome(id, value string) (o outcome, ok bool) {
	sealed, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		return o, false
	}
	packed, err := s.Keeper.Vault.Open(placeOfResult(id), sealed)
	if err != nil {
		return o, false
	}
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), answerSize))
	if err != nil || json.Unmarshal(plain, &o) != nil {
		return o, false
	}
	return o, time.Now().Before(o.Until)
}

// result shows what came of a trip, to the browser that made it.
func (s *console) result(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	o, ok := outcome{}, false
	if resultID.MatchString(id) {
		o, ok = s.openOutcome(id, s.cookie(r, resultCookie))
	}
	switch {
	case !ok:
		s.show(w, r, http.StatusGone, page{Name: "gone", Title: "This page is no longer here"})
	case o.Code != "":
		s.show(w, r, statusOf(o.Code), page{Name: "failed", Title: o.Title(), Trace: o.Trace, Data: o})
	case o.Admin:
		s.show(w, r, http.StatusOK, page{Name: "approved", Title: "Approved", Data: o})
	default:
		s.show(w, r, http.StatusOK, page{Name: "connected", Title: o.Mailbox + " is connected", Data: o})
	}
}
