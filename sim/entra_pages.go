package sim

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

//go:embed pages
var pageFiles embed.FS

// A page is what the templates in pages/ may show.
type page struct {
	Title    string
	Flow     *flow
	Address  string
	Problem  string
	Accounts []*account
	Tenant   *Tenant
	Scopes   []permission

	Publisher       string
	MayDecideForAll bool

	Action string
	Values url.Values
	Frames []string
	Error  *traced
	Nonce  string
	Data   any
}

// A permission is one line of a consent page.
type permission struct{ Title, Detail, Name string }

// What templates may know of a flow.

func (f *flow) ID() string      { return f.id }
func (f *flow) Canary() string  { return f.canary }
func (f *flow) App() string     { return f.app.Name }
func (f *flow) Path() string    { return "/" + f.segment.name + "/login" }
func (f *flow) Problem() string { return f.problem }
func (f *flow) Number() int     { return f.number }
func (f *flow) Device() bool    { return f.device != nil }

// User is the address that signs in, as far as it is known.
func (f *flow) User() string {
	if f.account == nil {
		return ""
	}
	return f.account.user.Address
}

// Return is the site that the browser goes back to.
func (f *flow) Return() string {
	u, err := url.Parse(f.redirect)
	if err != nil {
		return ""
	}
	return u.Host
}

func (a *account) Address() string { return a.user.Address }
func (a *account) Name() string    { return a.user.Name }

// templates are parsed once, for all sims of the process.
var templates = sync.OnceValue(func() map[string]*template.Template {
	all := map[string]*template.Template{}
	layout := template.Must(template.New("layout.html").Funcs(template.FuncMap{
		"decode": decodeWords,
		"join":   strings.Join,
		"time":   showTime,
	}).ParseFS(pageFiles, "pages/layout.html"))
	files, err := pageFiles.ReadDir("pages")
	if err != nil {
		panic(err) // embedded
	}
	for _, f := range files {
		name, isPage := strings.CutSuffix(f.Name(), ".html")
		if !isPage || name == "layout" {
			continue
		}
		clone := template.Must(layout.Clone())
		all[name] = template.Must(clone.ParseFS(pageFiles, "pages/"+f.Name()))
	}
	return all
})

// show writes a page.
func (en *entra) show(w http.ResponseWriter, status int, name string, p page) {
	if p.Problem == "" && p.Flow != nil {
		p.Problem = p.Flow.problem
	}
	showPage(w, status, name, p)
}

func showPage(w http.ResponseWriter, status int, name string, p page) {
	p.Nonce = newSecretText()
	var body bytes.Buffer
	if err := templates()[name].ExecuteTemplate(&body, name+".html", p); err != nil {
		http.Error(w, "the page "+name+" cannot be shown: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self' data:; "+
		"frame-src http: https:; connect-src 'self'; script-src 'nonce-"+p.Nonce+"'; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// showError shows an error that no app hears of.
func (en *entra) showError(w http.ResponseWriter, r *http.Request, e *aadError) {
	t := en.trace(r, e)
	entraHeaders(w, t.trace)
	title := "Sorry, but we're having trouble signing you in."
	switch e.code {
	case "53003", "53000", "53001", "53002", "530035":
		title = "You cannot access this right now"
	case "50057":
		title = "Your account has been disabled"
	case "50055":
		title = "Your password has expired"
	}
	en.show(w, e.status, "error", page{Title: title, Error: &t})
}

// Code, Text and the others are what the error page shows.
func (t *traced) Code() string        { return "AADSTS" + t.code }
func (t *traced) Text() string        { return t.text }
func (t *traced) Trace() string       { return t.trace }
func (t *traced) Correlation() string { return t.correlation }
func (t *traced) Time() string        { return t.at.Format(aadTime) }

// errorPage explains a code, as the address in error_uri does.
func (en *entra) errorPage(w http.ResponseWriter, r *http.Request) {
	code := r.URL.Query().Get("code")
	row, known := aadsts[code]
	if !known {
		row.text = "This code is not known here."
	}
	showPage(w, http.StatusOK, "code", page{Title: "Error code " + code, Address: row.text})
}

// style serves the style sheet.
func style(w http.ResponseWriter, r *http.Request) {
	http.ServeFileFS(w, r, pageFiles, "pages/style.css")
}
