package console

import (
	"net/http"
	"strings"
	"time"
)

// The cookies that a browser has from us.
const (
	browserCookie = "mailgrant"        // binds a consent to the browser it began in
	linkCookie    = "mailgrant-link"   // the link it began from, to begin again
	resultCookie  = "mailgrant-result" // what came of it, sealed
)

// flowLife is how long the provider's page may take.
const flowLife = 10 * time.Minute

// cookieName is the name with the prefix that makes browsers hold it to https and
// to this host alone. RFC 6265bis section 4.1.3.
func (s *console) cookieName(name string) string {
	switch {
	case !s.secure:
		return name
	case name == browserCookie:
		return "__Host-" + name
	}
	return "__Secure-" + name
}

// setCookie keeps a value in the browser. Lax lets the browser bring it when the
// provider sends it back to us; a life of 0 ends with the browser.
func (s *console) setCookie(w http.ResponseWriter, name, value, path string, life time.Duration) {
	c := &http.Cookie{Name: s.cookieName(name), Value: value, Path: path, Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if life != 0 {
		c.MaxAge = int(life.Seconds())
	}
	http.SetCookie(w, c)
}

func (s *console) cookie(r *http.Request, name string) string {
	c, err := r.Cookie(s.cookieName(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(c.Value)
}
