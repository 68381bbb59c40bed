package sim

import (
	"net/http"
	"net/url"
)

// webmailPath is the page of a mailbox.
func webmailPath(address string) string { return "/webmail/" + url.PathEscape(address) }

// webmailRoutes are the pages below /webmail, and the first page of all.
func (s *Sim) webmailRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, s.mail.mailboxes())
	})
}
