// Package console serves the pages that people see.
//
//	GET  /connect/{token}                     what a link asks for; looking begins nothing
//	POST /connect/{token}                     begins, and sends the browser to the provider
//	     /oauth/callback/{registration}       the provider sends the browser back
//	     /oauth/admin-consent/{registration}  the same for an administrator's approval
//	GET  /oauth/result/{id}                   what came of it, at an address without a code
//	GET  /docs/, /docs/errors/                the documents, and the causes of failures
//	GET  /, /healthz, /style.css, /icon.svg
//
// A page is made here, whole, and needs no script; nothing in it comes from
// elsewhere. No address is made of what a browser says: PublicURL is what we are
// called.
package console

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/mailgrant/mailgrant/internal/grant"
)

// Config is what the pages need. TrustedProxies and Log may be nil.
type Config struct {
	Keeper         *grant.Keeper
	Ping           func(context.Context) error // asks the database
	PublicURL      string                      // what browsers reach us by
	Version        string
	TrustedProxies []netip.Prefix // may say where a request comes from
	Log            *slog.Logger
}

// A console serves the pages.
type console struct {
	Config
	base   string // path of PublicURL, "" at the root
	secure bool   // PublicURL is https
	cross  *http.CrossOriginProtection
	pace   *pace
}

// New makes the handler of everything that is not the API.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &console{Config: c, cross: http.NewCrossOriginProtection(), pace: newPace()}
	if u, err := url.Parse(c.PublicURL); err == nil {
		s.base, s.secure = strings.TrimSuffix(u.Path, "/"), u.Scheme == "https"
		s.cross.AddTrustedOrigin(u.Scheme + "://" + u.Host) // a proxy in front may give us another Host
	}
	return s.headers(s.routes())
}

func (s *console) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /style.css", asset("style.css", "text/css; charset=utf-8"))
	mux.HandleFunc("GET /icon.svg", asset("icon.svg", "image/svg+xml"))
	mux.HandleFunc("GET /robots.txt", robots)

	mux.HandleFunc("GET /connect/{token}", s.invitation)
	mux.Handle("POST /connect/{token}", s.ownPages(s.begin))
	mux.HandleFunc("/oauth/callback/{registration}", s.callback(s.complete))
	mux.HandleFunc("/oauth/admin-consent/{registration}", s.callback(s.completeAdmin))
	mux.HandleFunc("GET /oauth/result/{id}", s.result)

	mux.HandleFunc("GET /docs/{$}", s.documents)
	mux.HandleFunc("GET /docs/{name...}", s.document)
	mux.HandleFunc("GET /docs/errors/{$}", s.causes)
	mux.HandleFunc("GET /docs/errors/{cause}", s.cause)
	mux.HandleFunc("/", s.nothing)
	return mux
}

func (s *console) home(w http.ResponseWriter, r *http.Request) {
	s.show(w, r, http.StatusOK, page{Name: "home", Title: "mailgrant", Nav: "home"})
}

func (s *console) nothing(w http.ResponseWriter, r *http.Request) {
	s.show(w, r, http.StatusNotFound, page{Name: "nothing", Title: "Nothing here", Nav: "none"})
}

// health is for load balancers: it says nothing but whether work can be done.
func (s *console) health(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := s.Ping(r.Context()); err != nil {
		s.Log.Warn("the database does not answer", "err", err)
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte("the database does not answer\n"))
		return
	}
	w.Write([]byte("ok\n"))
}

// robots keeps links that people were sent out of search engines.
func robots(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("User-agent: *\nDisallow: /connect/\nDisallow: /oauth/\n"))
}
