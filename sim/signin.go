package sim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// A SignIn says who goes through the sign-in pages, and how they answer.
type SignIn struct {
	Address  string
	Password string // "" is the right one

	Decline         bool // Cancel at the consent page
	DeclineApproval bool // "No, it's not me" in the authenticator
	ForOrganization bool // tick "Consent on behalf of your organization"
	RequestApproval bool // ask an administrator, where the tenant has that workflow
	StaySignedIn    bool

	// Jar keeps the session of the browser from one call to the next. With nil
	// each call is a new browser.
	Jar http.CookieJar
}

// NewJar is the memory of a browser for SignIn.
func NewJar() http.CookieJar {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err) // it has no way to fail
	}
	return jar
}

// A PageError is a page at which a sign-in ended without going back to the app.
type PageError struct {
	Page string // data-step of the page: error, password, number, …
	Text string // what it says
}

func (e *PageError) Error() string { return "sign-in ended at the page " + e.Page + ": " + e.Text }

// SignIn goes through the pages behind an authorization request, an admin
// consent or the page of a device code, as that person would with a browser,
// and returns where the browser was sent, without going there: a success or an
// error of OAuth is in its query, or in its fragment if the request asked for
// that. After a device code nobody is returned to, and the URL is nil. What
// stops at a page is a PageError.
func (s *Sim) SignIn(ctx context.Context, authorizeURL string, who SignIn) (*url.URL, error) {
	b := &browser{sim: s, who: who, ctx: ctx, seen: map[string]int{}}
	if b.who.Jar == nil {
		b.who.Jar = NewJar()
	}
	if b.who.Password == "" {
		u, _ := s.world.User(who.Address)
		b.who.Password = u.Password
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CertPool(), MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	b.client = &http.Client{Transport: transport, Jar: b.who.Jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	back, err := b.walk(http.MethodGet, authorizeURL, nil)
	if err != nil {
		return nil, fmt.Errorf("sign in as %s: %w", who.Address, err)
	}
	return back, nil
}

// A browser walks from page to page.
type browser struct {
	sim    *Sim
	who    SignIn
	ctx    context.Context
	client *http.Client
	seen   map[string]int // pages, by step
}

// maxPages is more than any honest sign-in has.
const maxPages = 20

func (b *browser) walk(method, at string, form url.Values) (*url.URL, error) {
	for range maxPages {
		res, err := b.load(method, at, form)
		if err != nil {
			return nil, err
		}
		if to, err := res.Location(); err == nil {
			if !b.own(to) {
				return to, nil
			}
			method, at, form = http.MethodGet, to.String(), nil
			continue
		}
		p, err := readPage(res)
		if err != nil {
			return nil, err
		}
		switch p.step {
		case "done":
			if b.who.Decline {
				return nil, &PageError{p.step, p.title}
			}
			return nil, nil
		case "formpost":
			return postedTo(p)
		}
		if form, err = b.fill(p); err != nil {
			return nil, err
		}
		to, err := res.Request.URL.Parse(p.action)
		if err != nil {
			return nil, err
		}
		method, at = http.MethodPost, to.String()
	}
	return nil, errors.New("the pages do not end")
}

func (b *browser) load(method, at string, form url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(b.ctx, method, at, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		req.Body, req.ContentLength = nil, 0
	}
	res, err := b.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	res.Body = io.NopCloser(strings.NewReader(string(body)))
	return res, err
}

// own says whether an address is one of our pages.
func (b *browser) own(u *url.URL) bool {
	at := u.Scheme + "://" + u.Host
	return (at == b.sim.LoginURL() || at == b.sim.BrowserURL()) && strings.HasSuffix(u.Path, "/login")
}

// postedTo is the address that a form_post goes to, with what it would post.
func postedTo(p *signInPage) (*url.URL, error) {
	u, err := url.Parse(p.action)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	for name, values := range p.hidden {
		q[name] = values
	}
	u.RawQuery = q.Encode()
	return u, nil
}

// fill answers one page.
func (b *browser) fill(p *signInPage) (url.Values, error) {
	b.seen[p.step]++
	form, yes := p.hidden, "yes"
	answer := func(ok bool) {
		if !ok {
			yes = "no"
		}
		form.Set("answer", yes)
	}
	if p.problem != "" {
		return nil, &PageError{p.step, p.problem}
	}
	switch p.step {
	case "address", "pick":
		form.Set("account", b.account(p))
	case "password":
		form.Set("password", b.who.Password)
	case "enroll":
	case "number":
		form.Set("number", p.number)
		answer(!b.who.DeclineApproval)
	case "confirm":
		answer(!b.who.Decline)
	case "consent":
		answer(!b.who.Decline)
		if b.who.ForOrganization && p.hasOrganization {
			form.Set("organization", "yes")
		}
	case "needadmin":
		form.Set("answer", "return")
		if b.who.RequestApproval {
			form.Set("answer", "request")
		}
	case "stay":
		answer(b.who.StaySignedIn)
	case "device":
		form.Set("otc", p.code)
		if p.code == "" {
			return nil, &PageError{p.step, "the address has no user_code"}
		}
	default:
		return nil, &PageError{p.step, p.title}
	}
	return form, nil
}

// account is what to answer to "who are you": the address, or "another account"
// when it is not among those offered.
func (b *browser) account(p *signInPage) string {
	if p.step == "pick" && !containsFold(p.accounts, b.who.Address) {
		return ""
	}
	return b.who.Address
}

// A signInPage is what of a page matters to somebody who goes through it.
type signInPage struct {
	step, action, title, problem string
	number, code                 string
	hidden                       url.Values
	accounts                     []string
	hasOrganization              bool
}

func readPage(res *http.Response) (*signInPage, error) {
	doc, err := html.Parse(res.Body)
	if err != nil {
		return nil, err
	}
	p := &signInPage{hidden: url.Values{}}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		at := attributes(n)
		switch {
		case n.Data == "h1":
			p.title = textOf(n)
		case at["id"] == "problem":
			p.problem = textOf(n)
		case n.Data == "button" && at["name"] == "account":
			p.accounts = append(p.accounts, at["value"])
		case n.Data == "input" && at["name"] == "organization":
			p.hasOrganization = true
		case n.Data == "input" && at["name"] == "otc":
			p.code = at["value"]
		}
		step, ok := at["data-step"]
		if !ok {
			continue
		}
		p.step, p.number = step, at["data-number"]
		if step == "error" {
			return nil, &PageError{step, textOf(n)}
		}
		if n.Data == "form" {
			p.action, p.hidden = at["action"], hiddenIn(n)
		}
	}
	if p.step == "" {
		return nil, &PageError{"unknown", fmt.Sprintf("%s (%s)", p.title, res.Status)}
	}
	return p, nil
}

func hiddenIn(form *html.Node) url.Values {
	v := url.Values{}
	for n := range form.Descendants() {
		if at := attributes(n); n.Data == "input" && at["type"] == "hidden" {
			v.Add(at["name"], at["value"])
		}
	}
	return v
}

func attributes(n *html.Node) map[string]string {
	all := map[string]string{}
	for _, a := range n.Attr {
		all[a.Key] = a.Val
	}
	return all
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
