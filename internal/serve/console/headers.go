package console

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

type traceKey struct{}

// traceOf is the number of a request: in the answer's header, on the page of a
// failure, and in the log.
func traceOf(r *http.Request) mailgrant.ID {
	id, _ := r.Context().Value(traceKey{}).(mailgrant.ID)
	return id
}

// policy lets a page load our style sheet and icon, send forms to us, and nothing
// else. formTo adds where the forms of one page lead in the end: browsers hold
// every redirect after a form to it.
func policy(formTo string) string {
	return strings.TrimSpace("default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' " + formTo)
}

// headers are those of every answer, errors included. R-WB4.
func (s *console) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		trace := mailgrant.NewID(mailgrant.PrefixTrace)
		r = r.WithContext(context.WithValue(r.Context(), traceKey{}, trace))
		h.Set("Mailgrant-Trace", string(trace))
		h.Set("Content-Security-Policy", policy(""))
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer") // addresses here hold links and codes
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=()")
		h.Set("Cache-Control", "no-store")
		if s.secure {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		if strings.HasPrefix(r.URL.Path, "/connect/") || strings.HasPrefix(r.URL.Path, "/oauth/") {
			h.Set("X-Robots-Tag", "noindex, nofollow")
		}
		if r.ContentLength != 0 {
			s.deadline(w)
		}
		defer s.rescue(w, r)
		next.ServeHTTP(w, r)
	})
}

// bodyWithin is how long the body of a request may take. Forms are small.
const bodyWithin = 20 * time.Second

// deadline bounds the reading of the body, also of one that nobody reads: the
// server wants its end before it answers.
func (s *console) deadline(w http.ResponseWriter) {
	err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWithin))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.Log.Debug("a deadline was not set", "err", err)
	}
}

// rescue shows a page when something broke inside.
func (s *console) rescue(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.Log.Error("a page failed inside", "trace", traceOf(r), "path", r.Pattern, "panic", p, "stack", string(debug.Stack()))
	f := mailgrant.Finding{Sentence: "Something went wrong inside mailgrant.", Remedy: "Try again; if it stays, give the trace number below to whoever runs mailgrant.", Who: mailgrant.WhoOperator}
	o := outcome{Code: mailgrant.Internal, Trace: traceOf(r), Finding: &f}
	s.show(w, r, http.StatusInternalServerError, page{Name: "failed", Title: o.Title(), Trace: o.Trace, Data: o})
}

// ownPages lets only forms of our own pages through. R-WB3.
func (s *console) ownPages(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.cross.Check(r); err != nil {
			s.Log.Warn("a form of another site is refused", "path", r.Pattern, "err", err)
			s.show(w, r, http.StatusForbidden, page{Name: "foreign", Title: "Not from here"})
			return
		}
		next(w, r)
	})
}
