package console

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// answerSize bounds what a provider may send back: a code, a state and an error.
const answerSize = 64 << 10

// callback takes the provider's answer from a browser and hands it to complete.
// GET has it in the address. POST (response_mode=form_post) comes from a foreign
// page and so without our cookie: it is sealed and sent on to GET, which has it.
func (s *console) callback(complete http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			s.posted(w, r)
		case r.Method != http.MethodGet: // HEAD would use the consent up
			w.Header().Set("Allow", "GET, POST")
			s.show(w, r, http.StatusMethodNotAllowed, page{Name: "nothing", Title: "Nothing here", Nav: "none"})
		case strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch"): // and so would looking ahead
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			complete(w, r)
		}
	}
}

func placeOfAnswer(registration mailgrant.ID) vault.Place {
	return vault.Place{Table: "browser", Column: "answer", Row: registration}
}

// posted sends the browser on with a sealed answer.
func (s *console) posted(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, answerSize)
	if err := r.ParseForm(); err != nil {
		s.rejected(w, r, mailgrant.Errorf(mailgrant.Invalid, err, "the provider's answer cannot be read").Fix("begin again from the link you were given"))
		return
	}
	sealed, err := s.Keeper.Vault.Seal(placeOfAnswer(registrationOf(r)), []byte(r.Form.Encode()))
	if err != nil {
		s.rejected(w, r, err)
		return
	}
	w.Header().Set("Location", s.base+r.URL.Path+"?posted="+base64.RawURLEncoding.EncodeToString(sealed))
	w.WriteHeader(http.StatusSeeOther)
}

// answer is what the provider said.
func (s *console) answer(r *http.Request) url.Values {
	q := r.URL.Query()
	if len(q) != 1 || len(q["posted"]) != 1 {
		return q
	}
	sealed, err := base64.RawURLEncoding.DecodeString(q.Get("posted"))
	if err != nil {
		return url.Values{}
	}
	plain, err := s.Keeper.Vault.Open(placeOfAnswer(registrationOf(r)), sealed)
	if err != nil {
		return url.Values{}
	}
	q, _ = url.ParseQuery(string(plain)) // we wrote it
	return q
}

// registrationOf is the registration in the address, "" when it cannot be one.
func registrationOf(r *http.Request) mailgrant.ID {
	if id := mailgrant.ID(r.PathValue("registration")); id.Is(mailgrant.PrefixRegistration) {
		return id
	}
	return ""
}

// complete takes the answer to a person's consent.
func (s *console) complete(w http.ResponseWriter, r *http.Request) {
	res, err := s.Keeper.Complete(r.Context(), registrationOf(r), s.answer(r), s.cookie(r, browserCookie))
	if err != nil && res.Grant.ID == "" {
		s.rejected(w, r, err)
		return
	}
	o := outcome{Mailbox: res.Grant.Mailbox, ReturnTo: res.ReturnTo}
	if err != nil {
		o = s.failedWith(r, o, "complete a consent", err)
		s.askAdministrator(r, &o, res.Grant)
	}
	s.settings(r, &o, res.Grant)
	o.Rights = mayNow(res.Grant)
	o.SignedIn = or(res.Grant.Subject.UPN, res.Grant.Subject.Address)
	o.Shared = res.Grant.MailboxKind == mailgrant.MailboxShared
	s.finish(w, r, o)
}

// askAdministrator adds a link for whoever may approve what the person may not. It
// lets nobody do more than the operator asked for: the same rights for the same
// grant, and an administrator still has to say yes.
func (s *console) askAdministrator(r *http.Request, o *outcome, g mailgrant.Grant) {
	if o.Finding.Cause != "admin-consent-required" {
		return
	}
	link, err := s.Keeper.Link(r.Context(), g.Org, g.ID, store.FlowAdminConsent, "whoever was asked to connect "+g.Mailbox)
	if err != nil {
		s.Log.Info("no link for an administrator", "grant", g.ID, "err", err)
		return
	}
	reg, err := s.Keeper.Store.Registration(r.Context(), g.Org, g.Registration)
	if err != nil {
		return // the page does without
	}
	o.Approval, o.Registration = link.URL, reg.Name
}

// completeAdmin takes the answer to an administrator's approval.
func (s *console) completeAdmin(w http.ResponseWriter, r *http.Request) {
	res, err := s.Keeper.CompleteAdminConsent(r.Context(), registrationOf(r), s.answer(r), s.cookie(r, browserCookie))
	if err != nil && res.Grant.ID == "" {
		s.rejected(w, r, err)
		return
	}
	o := outcome{Admin: true, Mailbox: res.Grant.Mailbox, ReturnTo: res.ReturnTo, Active: res.Active, Scopes: res.Consent.Scopes}
	if err != nil {
		o = s.failedWith(r, o, "complete an approval", err)
	}
	s.settings(r, &o, res.Grant)
	o.ByPerson = res.Grant.Flow != mailgrant.FlowApp
	s.finish(w, r, o)
}

// settings adds what the provider is called, and where it takes a consent back.
func (s *console) settings(r *http.Request, o *outcome, g mailgrant.Grant) {
	set, err := s.Keeper.Settings(r.Context(), g.Org, g.Registration)
	if err != nil {
		return // the page does without
	}
	o.Provider, o.RevokeAt = set.Name, set.RevokeAt
}

// rejected answers what belongs to no consent of this browser, at once and where
// it came to: a code in that address fits nothing. OA-01, OA-02, OA-03.
func (s *console) rejected(w http.ResponseWriter, r *http.Request, err error) {
	o := s.failed(r, "take a provider's answer", err)
	o.Link = s.linkAgain(r, "")
	s.show(w, r, statusOf(o.Code), page{Name: "failed", Title: o.Title(), Trace: o.Trace, Data: o})
}

// linkAgain is the link this browser began from, if it still works and is for
// that mailbox; "" asks for any.
func (s *console) linkAgain(r *http.Request, mailbox string) string {
	token := s.cookie(r, linkCookie)
	if token == "" {
		return ""
	}
	i, err := s.Keeper.Invitation(r.Context(), token)
	if err != nil || mailbox != "" && i.Mailbox != mailbox {
		return ""
	}
	return s.base + "/connect/" + url.PathEscape(token)
}
