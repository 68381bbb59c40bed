package console

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// An invitation is what the page of a link shows.
type invitation struct {
	grant.Invitation
	Path string // of the form
	Host string // of the provider's page
	Here string // our own host: who asks, while the organization has no name
}

func (i invitation) Admin() bool  { return i.Kind == store.FlowAdminConsent }
func (i invitation) App() bool    { return i.MailboxKind == mailgrant.MailboxApp }
func (i invitation) Shared() bool { return i.MailboxKind == mailgrant.MailboxShared }

// invitation shows what a link asks for. Nothing begins by looking: scanners of
// mail open every link before a person does.
func (s *console) invitation(w http.ResponseWriter, r *http.Request) {
	if wait := s.pace.rest(s.from(r)); wait > 0 {
		s.slow(w, r, wait)
		return
	}
	token := r.PathValue("token")
	i, err := s.Keeper.Invitation(r.Context(), token)
	if err != nil {
		s.noInvitation(w, r, err)
		return
	}
	d := invitation{i, s.base + "/connect/" + url.PathEscape(token), hostOf(i.Authorize), hostOf(s.PublicURL)}
	// Chromium holds each redirect after a form to the page's form-action, and
	// providers send browsers on among hosts of their own that nobody lists.
	w.Header().Set("Content-Security-Policy", policy(origin(i.Authorize)+" https:"))
	p := page{Name: "connect", Title: "Connect " + i.Mailbox, Data: d}
	if d.Admin() {
		p.Name, p.Title = "approve", "Approve "+i.Registration
	}
	s.show(w, r, http.StatusOK, p)
}

// begin starts the consent and sends the browser to the provider. OA-04.
func (s *console) begin(w http.ResponseWriter, r *http.Request) {
	if wait := s.pace.rest(s.from(r)); wait > 0 {
		s.slow(w, r, wait)
		return
	}
	token := r.PathValue("token")
	c, err := s.Keeper.BeginLink(r.Context(), token, grant.BeginOptions{Cookie: s.cookie(r, browserCookie)})
	if err != nil {
		s.noInvitation(w, r, err)
		return
	}
	s.setCookie(w, browserCookie, c.Cookie, "/", 0)
	s.setCookie(w, linkCookie, token, s.base+"/oauth/", flowLife)
	w.Header().Set("Location", c.URL)
	w.WriteHeader(http.StatusSeeOther)
}

// noInvitation is one page for unknown, used, ended and taken-back links, and
// another for a failure that is ours.
func (s *console) noInvitation(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, mailgrant.NotFound) {
		s.pace.wrong(s.from(r))
		s.show(w, r, http.StatusNotFound, page{Name: "nolink", Title: "This link does not work"})
		return
	}
	o := s.failed(r, "show a link", err)
	s.show(w, r, statusOf(o.Code), page{Name: "failed", Title: o.Title(), Trace: o.Trace, Data: o})
}

func (s *console) slow(w http.ResponseWriter, r *http.Request, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	s.show(w, r, http.StatusTooManyRequests, page{Name: "slow", Title: "Please wait a moment"})
}

func origin(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
