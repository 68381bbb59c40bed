package console

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/sim"
)

// Cases of the threat list that touch pages, by their ids.

func TestOA01AnswersWithoutAKnownState(t *testing.T) {
	h := newHouse(t, options{})
	link := h.link(h.grant(alex), store.FlowConsent)
	for name, q := range map[string]string{
		"no state": "code=abc", "empty state": "code=abc&state=", "unknown state": "code=abc&state=" + strings.Repeat("x", 43),
		"long state": "code=abc&state=" + strings.Repeat("x", 9000), "an error without state": "error=access_denied", "nothing": "",
	} {
		for _, at := range []string{"/oauth/callback/", "/oauth/admin-consent/"} {
			b := h.browser()
			b.begin(link)
			r := b.get(at + string(h.reg.ID) + "?" + q)
			r.wants(t, http.StatusBadRequest, "This has to begin again", "Trace number trc_")
			if !strings.Contains(r.Body, `href="`+link+`"`) {
				t.Errorf("%s: no way to begin again", name)
			}
		}
	}
	if n := h.tokens(); n != 0 {
		t.Errorf("%d token requests left", n)
	}
	events, err := h.store.Events(t.Context(), h.org, store.EventFilter{Limit: 100})
	must(t, err)
	rejected := 0
	for _, e := range events {
		if e.Kind == "oauth.callback_rejected" {
			rejected++
		}
	}
	if rejected != 12 {
		t.Errorf("%d of 12 rejections are in the event log", rejected)
	}
}

func TestOA01AnAnswerForNoRegistration(t *testing.T) {
	h := newHouse(t, options{})
	for _, id := range []string{string(mailgrant.NewID(mailgrant.PrefixRegistration)), "reg_x", "..%2f..", strings.Repeat("a", 3000), "%00"} {
		h.browser().get("/oauth/callback/"+id+"?code=a&state=b").wants(t, http.StatusBadRequest, "begin again")
	}
}

func TestOA02ReplayedAnswer(t *testing.T) {
	h := newHouse(t, options{})
	g := h.grant(alex)
	b := h.browser()
	back := b.signIn(b.begin(h.link(g, store.FlowConsent)), sim.SignIn{Address: alex})
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 8 {
		wg.Go(func() {
			r := b.get(back)
			mu.Lock()
			statuses[r.Status]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if statuses[http.StatusSeeOther] != 1 || statuses[http.StatusBadRequest] != 7 {
		t.Errorf("answers: %v, want one 303 and seven 400", statuses)
	}
	if n := h.tokens(); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
	b.get(back).wants(t, http.StatusBadRequest, "This has to begin again")
}

func TestOA03AnswerInAnotherBrowser(t *testing.T) {
	h := newHouse(t, options{})
	g := h.grant(alex)
	attacker, victim := h.browser(), h.browser()
	link := h.link(g, store.FlowConsent)
	victim.begin(link) // has a cookie of its own
	back := attacker.signIn(attacker.begin(link), sim.SignIn{Address: alex})
	victim.get(back).wants(t, http.StatusBadRequest, "finished in another")
	if n := h.tokens(); n != 0 {
		t.Errorf("%d token requests left", n)
	}
	if g, _ = h.store.Grant(t.Context(), h.org, g.ID); g.State != mailgrant.GrantPending {
		t.Errorf("the grant is %s", g.State)
	}
}

// A link begins nothing by being looked at: by a mail scanner, a preview, or a
// browser that looks ahead. Only the button of our own page begins.
func TestOA04OnlyAPersonBegins(t *testing.T) {
	h := newHouse(t, options{})
	link := h.link(h.grant(alex), store.FlowConsent)
	for range 20 {
		b := h.browser()
		b.get(link).wants(t, http.StatusOK)
		b.do(http.MethodHead, link, nil)
		b.get(link, func(r *http.Request) { r.Header.Set("Sec-Purpose", "prefetch;prerender") }).wants(t, http.StatusOK)
		if u, _ := url.Parse(h.url); len(b.client.Jar.Cookies(u)) != 0 {
			t.Fatal("looking set a cookie")
		}
	}
	for name, change := range map[string]func(*http.Request){
		"another site": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"a neighbour":  func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
		"old browser":  func(r *http.Request) { r.Header.Del("Sec-Fetch-Site"); r.Header.Set("Origin", "https://evil.example") },
		"no origin":    func(r *http.Request) { r.Header.Del("Sec-Fetch-Site"); r.Header.Set("Origin", "null") },
	} {
		if r := h.browser().do(http.MethodPost, link, nil, change); r.Status != http.StatusForbidden || r.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d", name, r.Status)
		}
	}
	b := h.browser()
	b.consent(link, sim.SignIn{Address: alex}).wants(t, http.StatusOK, "is connected")
}

func TestOA05AnotherAccountSignsIn(t *testing.T) {
	h := newHouse(t, options{})
	g := h.grant(alex)
	link, b := h.link(g, store.FlowConsent), h.browser()
	r := b.consent(link, sim.SignIn{Address: kim})
	r.wants(t, http.StatusForbidden, "That was another account", kim, alex, "Begin again", "Nothing was kept", "private window")
	if g, _ = h.store.Grant(t.Context(), h.org, g.ID); g.State != mailgrant.GrantPending || len(g.Sealed) != 0 {
		t.Errorf("the grant is %s, %d bytes kept", g.State, len(g.Sealed))
	}
	b.jar = sim.NewJar()
	b.consent(link, sim.SignIn{Address: alex}).wants(t, http.StatusOK, "alex@contoso.example is connected")
	h.browser().get(link).wants(t, http.StatusNotFound)
}

func TestOA06LinksThatDoNotWorkLookAlike(t *testing.T) {
	h := newHouse(t, options{})
	used, ended, gone := h.link(h.grant(alex), store.FlowConsent), h.link(h.grant(kim), store.FlowConsent), h.grant("sam@contoso.example")
	takenBack := h.link(gone, store.FlowConsent)
	b := h.browser()
	b.consent(used, sim.SignIn{Address: alex}).wants(t, http.StatusOK)
	must(t, h.store.DeleteGrant(t.Context(), h.org, gone.ID))
	h.ahead.Store(int64(73 * time.Hour))
	var first string
	for name, link := range map[string]string{"used": used, "ended": ended, "taken back": takenBack, "guessed": "/connect/" + strings.Repeat("A", 43),
		"short": "/connect/abc", "odd": "/connect/%00%ff"} {
		r := b.get(link)
		r.wants(t, http.StatusNotFound, "This link does not work")
		if first == "" {
			first = r.Body
		}
		if r.Body != first {
			t.Errorf("the page of a %s link differs", name)
		}
		if r := b.do(http.MethodPost, link, nil); r.Status != http.StatusNotFound || r.Body != first {
			t.Errorf("the button of a %s link: %d", name, r.Status)
		}
	}
}

func TestOA06GuessingIsSlowedDown(t *testing.T) {
	h := newHouse(t, options{})
	b := h.browser()
	for n := range 200 {
		r := b.get(fmt.Sprintf("/connect/%043d", n))
		if r.Status == http.StatusTooManyRequests {
			if n < 10 {
				t.Errorf("already at guess %d", n)
			}
			if wait, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || wait < 1 || wait > int(wrongEvery/time.Second) {
				t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
			}
			return
		}
	}
	t.Error("two hundred guesses and no end")
}

func TestOA10AnswerAtAnotherRegistration(t *testing.T) {
	h := newHouse(t, options{})
	other := h.registration("Other", sim.ContosoClientID, sim.ContosoClientSecret, options{})
	b := h.browser()
	back := b.signIn(b.begin(h.link(h.grant(alex), store.FlowConsent)), sim.SignIn{Address: alex})
	b.get(strings.Replace(back, string(h.reg.ID), string(other.ID), 1)).wants(t, http.StatusBadRequest)
	b = h.browser()
	back = b.signIn(b.begin(h.link(h.grant(kim), store.FlowConsent)), sim.SignIn{Address: kim})
	b.get(strings.Replace(back, "/oauth/callback/", "/oauth/admin-consent/", 1)).wants(t, http.StatusBadRequest)
	if n := h.tokens(); n != 0 {
		t.Errorf("%d token requests left", n)
	}
}

func TestOA24NoOpenRedirect(t *testing.T) {
	h := newHouse(t, options{returnURLs: []string{"https://cases.contoso.example/done"}})
	g := h.grant(alex)
	for _, to := range []string{"//evil.example", "/\\evil.example", "https:evil.example", "%2f%2fevil.example", "/%2f/evil.example", "/\t/evil.example", "/\n/evil.example",
		"javascript:alert(1)", "data:text/html,x", "https://cases.contoso.example@evil.example/", "https://cases.contoso.example/done?x", "https://cases.contoso.example/done#x",
		"https://CASES.contoso.example/done", "http://cases.contoso.example/done", "https://cases.contoso.example/done/", "///evil.example", "/..//evil.example", "\\\\evil.example",
		" https://cases.contoso.example/done", "https://cases.contoso.example.evil.example/done"} {
		if _, err := h.keeper.Begin(t.Context(), h.org, g.ID, grant.BeginOptions{ReturnTo: to}); err == nil {
			t.Errorf("a consent may return to %q", to)
		}
	}
	// Nothing a browser says on the way is an address to go to.
	b := h.browser()
	link := h.link(g, store.FlowConsent)
	for _, r := range []reply{
		b.do(http.MethodPost, link+"?return_to=https://evil.example", url.Values{"return_to": {"https://evil.example"}}),
		b.get("/oauth/callback/" + string(h.reg.ID) + "?state=x&return_to=//evil.example"),
		b.get("//evil.example/docs/"), b.get("/docs/..//evil.example"),
	} {
		if to := r.Header.Get("Location"); strings.HasPrefix(to, "//evil") || strings.HasPrefix(to, "https://evil") {
			t.Errorf("%s leads to %s", r.At, to)
		}
	}
}

func TestOA25ErrorsOfTheProviderAreQuoted(t *testing.T) {
	h := newHouse(t, options{})
	long := strings.Repeat("long ", 13000)
	for name, text := range map[string]string{
		"markup": `<script>alert(1)</script><img src=x onerror=alert(1)>"'><b>`, "long": long, "controls": "a\x1b[31mred\r\nSet-Cookie: a=b\x00\u202egnp", "link": "see https://evil.example/",
	} {
		for _, known := range []bool{false, true} {
			b, state := h.browser(), strings.Repeat("x", 43)
			if known {
				u, err := url.Parse(b.begin(h.link(h.grant(alex), store.FlowConsent)))
				must(t, err)
				state = u.Query().Get("state")
			}
			q := url.Values{"error": {"access_denied"}, "error_description": {text}, "error_uri": {"https://evil.example/help"}, "state": {state}}
			if name == "long" {
				q.Set("error_description", text[:20000]) // the rest would be no request at all
			}
			r := b.follow(b.get("/oauth/callback/" + string(h.reg.ID) + "?" + q.Encode()))
			if r.Status/100 != 4 {
				t.Errorf("%s: %d", name, r.Status)
			}
			for _, never := range []string{"<script", "<img", "<b>", "\x1b", "\u202e", "evil.example/help", `href="https://evil`, strings.Repeat("long ", 120)} {
				if strings.Contains(r.Body, never) {
					t.Errorf("%s: the page has %q", name, never)
				}
			}
		}
	}
	for line := range strings.Lines(h.log.String()) {
		if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "}\n") || len(line) > 4000 {
			t.Errorf("a log line is not one line of JSON, or too long: %.300q", line)
		}
	}
}

func TestOA26ParametersTwice(t *testing.T) {
	h := newHouse(t, options{})
	for _, twice := range []string{"code", "state"} {
		b := h.browser()
		back := b.signIn(b.begin(h.link(h.grant(alex), store.FlowConsent)), sim.SignIn{Address: alex})
		u, _ := url.Parse(back)
		b.get(back+"&"+twice+"="+u.Query().Get(twice)).wants(t, http.StatusBadRequest)
		b.follow(b.do(http.MethodPost, back, url.Values{twice: {"other"}})).wants(t, http.StatusBadRequest)
	}
	b := h.browser()
	back := b.signIn(b.begin(h.link(h.grant(alex), store.FlowConsent)), sim.SignIn{Address: alex})
	for _, method := range []string{http.MethodHead, http.MethodPut, http.MethodDelete, "TRACE"} {
		if r := b.do(method, back, nil); r.Status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, r.Status)
		}
	}
	if n := h.tokens(); n != 0 {
		t.Errorf("%d token requests left", n)
	}
	b.get(back, func(r *http.Request) { r.Header.Set("Sec-Purpose", "prefetch") }).wants(t, http.StatusServiceUnavailable)
	b.follow(b.get(back)).wants(t, http.StatusOK, "is connected") // none of them used it up
}

func TestOA27CodesLeakNowhere(t *testing.T) {
	h := newHouse(t, options{})
	b := h.browser()
	link := h.link(h.grant(alex), store.FlowConsent)
	begun := b.do(http.MethodPost, link, nil)
	back := b.signIn(begun.Header.Get("Location"), sim.SignIn{Address: alex})
	u, _ := url.Parse(back)
	answer := b.get(back)
	last := b.follow(answer)
	last.wants(t, http.StatusOK)
	replayed := b.get(back)

	wrong := h.browser()
	back2 := wrong.signIn(wrong.begin(h.link(h.grant(kim), store.FlowConsent)), sim.SignIn{Address: "sam@contoso.example"})
	u2, _ := url.Parse(back2)
	failed := wrong.follow(wrong.get(back2))

	secrets := []string{u.Query().Get("code"), u.Query().Get("state"), u2.Query().Get("code"), u2.Query().Get("state"), strings.TrimPrefix(link, "/connect/"), sim.ContosoClientSecret}
	for _, r := range []reply{answer, last, replayed, failed} {
		if r.Header.Get("Referrer-Policy") != "no-referrer" || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", r.At, r.Header)
		}
		for _, s := range secrets {
			if s == "" || strings.Contains(r.Body, s) && !strings.Contains(r.Body, "/connect/"+s) {
				t.Errorf("%.60s has a secret in its page", r.At)
			}
		}
	}
	for _, page := range []string{last.At, failed.At} {
		if u, _ := url.Parse(page); u.RawQuery != "" || !strings.HasPrefix(u.Path, "/oauth/result/") {
			t.Errorf("the page that stays in history is %s", page)
		}
	}
	for _, s := range secrets {
		if strings.Contains(h.log.String(), s) {
			t.Errorf("the log has %.10s…", s)
		}
	}
}

// SE-01 for what pages, cookies and the log of a consent could carry.
func TestSE01NoSecretInPagesCookiesAndLog(t *testing.T) {
	h := newHouse(t, options{})
	g := h.grant(alex)
	b := h.browser()
	var all strings.Builder
	link := h.link(g, store.FlowConsent)
	for _, r := range []reply{b.get(link), b.do(http.MethodPost, link, nil)} {
		all.WriteString(r.Body)
		all.WriteString(strings.Join(r.Header.Values("Set-Cookie"), "\n"))
	}
	r := b.get(b.signIn(b.begin(link), sim.SignIn{Address: alex}))
	all.WriteString(strings.Join(r.Header.Values("Set-Cookie"), "\n"))
	all.WriteString(b.follow(r).Body)
	all.WriteString(h.log.String())
	token, err := h.keeper.Token(t.Context(), h.org, g.ID, "")
	must(t, err)
	sealed, err := h.store.Grant(t.Context(), h.org, g.ID)
	must(t, err)
	for _, secret := range []string{token.Value.Reveal(), string(sealed.Sealed), sim.ContosoClientSecret, sim.ContosoPassword} {
		if strings.Contains(all.String(), secret) {
			t.Errorf("found %.8s…", secret)
		}
	}
	if m := regexp.MustCompile(`eyJ[\w-]{20,}`).FindString(all.String()); m != "" {
		t.Errorf("found a token: %.20s…", m)
	}
}

func TestWB01WordsOfOthersAreQuoted(t *testing.T) {
	h := newHouse(t, options{})
	const evil = `"><script>alert(1)</script>'{{.}}javascript:alert(1)`
	must(t, h.store.UpdateOrganization(t.Context(), mailgrant.Organization{ID: h.org, Name: "Contoso " + evil}))
	h.reg.Name = evil
	must(t, h.store.UpdateRegistration(t.Context(), h.reg))
	link, err := h.keeper.Link(t.Context(), h.org, h.grant(alex).ID, store.FlowConsent, evil)
	must(t, err)
	r := h.browser().get(link.URL)
	r.wants(t, http.StatusOK, evil)
	s := h.browser().get("/docs/errors/?q=" + url.QueryEscape(evil))
	if strings.Contains(r.Body+s.Body, "<script") {
		t.Error("a script stands in the page")
	}
}

func TestWB04AndWB05HeadersOfEveryAnswer(t *testing.T) {
	h := newHouse(t, options{})
	link := h.link(h.grant(alex), store.FlowConsent)
	b := h.browser()
	for _, r := range []reply{b.get("/"), b.get(link), b.get("/connect/none"), b.get("/oauth/callback/reg_x"), b.get("/oauth/result/x"), b.get("/docs/"), b.get("/docs/start"),
		b.get("/docs/errors/"), b.get("/docs/errors/unknown"), b.get("/docs/errors/none"), b.get("/nothing"), b.get("/healthz"), b.get("/style.css"), b.get("/icon.svg"),
		b.do(http.MethodPost, link, nil), b.do(http.MethodPost, "/", nil), b.do(http.MethodPost, link, nil, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") })} {
		csp := r.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "style-src 'self'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: policy %q lacks %s", r.At, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") || strings.Contains(csp, "*") {
			t.Errorf("%s: policy %q", r.At, csp)
		}
		for name, want := range map[string]string{"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin"} {
			if r.Header.Get(name) != want {
				t.Errorf("%s: %s is %q", r.At, name, r.Header.Get(name))
			}
		}
		if cache := r.Header.Get("Cache-Control"); cache != "no-store" && !strings.HasSuffix(r.At, ".css") && !strings.HasSuffix(r.At, ".svg") {
			t.Errorf("%s: Cache-Control is %q", r.At, cache)
		}
		if !mailgrant.ID(r.Header.Get("Mailgrant-Trace")).Is(mailgrant.PrefixTrace) {
			t.Errorf("%s has no trace number", r.At)
		}
		if r.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s lets other sites read it", r.At)
		}
		for _, c := range r.Header.Values("Set-Cookie") {
			if !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Lax") {
				t.Errorf("%s: cookie %q", r.At, c)
			}
		}
		if strings.Contains(r.Body, "<script") || strings.Contains(r.Body, "style=") || strings.Contains(r.Body, " on") && regexp.MustCompile(`\son\w+=`).MatchString(r.Body) {
			t.Errorf("%s has a script or a style of its own", r.At)
		}
	}
}

// The organization of a fresh install has no name that would mean something to the
// owner of a mailbox.
func TestAnUnnamedOrganizationIsNotNamed(t *testing.T) {
	h := newHouse(t, options{})
	must(t, h.store.UpdateOrganization(t.Context(), mailgrant.Organization{ID: h.org, Name: mailgrant.MainOrganization}))
	for _, kind := range []store.FlowKind{store.FlowConsent, store.FlowAdminConsent} {
		b := h.browser()
		body := b.get(h.link(h.grant(alex), kind)).Body
		if strings.Contains(body, mailgrant.MainOrganization) || !strings.Contains(body, strings.TrimPrefix(h.url, "http://")) {
			t.Errorf("%s:\n%s", kind, body)
		}
	}
}

func TestWB05CookiesOfHTTPS(t *testing.T) {
	h := newHouse(t, options{})
	h.keeper.PublicURL = "https://mailgrant.contoso.example"
	s := New(Config{Keeper: h.keeper, Ping: h.store.Ping, PublicURL: h.keeper.PublicURL})
	link, err := h.keeper.Link(t.Context(), h.org, h.grant(alex).ID, store.FlowConsent, "")
	must(t, err)
	r := answerOf(s, http.MethodPost, link.URL)
	if r.Code != http.StatusSeeOther {
		t.Fatalf("%d", r.Code)
	}
	all := strings.Join(r.Header().Values("Set-Cookie"), "\n")
	if !regexp.MustCompile(`(?m)^__Host-mailgrant=[\w-]{43}; Path=/; HttpOnly; Secure; SameSite=Lax$`).MatchString(all) {
		t.Errorf("the browser's cookie is not held to this host: %s", all)
	}
	if !regexp.MustCompile(`(?m)^__Secure-mailgrant-link=[\w-]{43}; Path=/oauth/; Max-Age=600; HttpOnly; Secure; SameSite=Lax$`).MatchString(all) {
		t.Errorf("the link's cookie: %s", all)
	}
	if r.Header().Get("Strict-Transport-Security") == "" {
		t.Error("no HSTS")
	}
}

// R-WB5: what a request says of our name is in no address.
func TestAU01HostIsNotBelieved(t *testing.T) {
	h := newHouse(t, options{})
	link := h.link(h.grant(alex), store.FlowConsent)
	evil := func(r *http.Request) {
		r.Host = "evil.example"
		r.Header.Set("X-Forwarded-Host", "evil.example")
		r.Header.Set("Forwarded", "host=evil.example;proto=https")
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("X-Forwarded-Prefix", "/evil.example")
	}
	b := h.browser()
	for _, r := range []reply{b.get("/", evil), b.get(link, evil), b.do(http.MethodPost, link, nil, evil), b.get("/docs", evil), b.get("/docs/errors", evil), b.get("/oauth/callback/x?state=y", evil)} {
		if strings.Contains(r.Body, "evil.example") || strings.Contains(r.Header.Get("Location"), "evil.example") {
			t.Errorf("%s: evil.example is in the answer, Location %q", r.At, r.Header.Get("Location"))
		}
	}
	r := b.do(http.MethodPost, link, nil, evil)
	u, _ := url.Parse(r.Header.Get("Location"))
	if to := u.Query().Get("redirect_uri"); to != h.url+"/oauth/callback/"+string(h.reg.ID) {
		t.Errorf("the provider is to send the browser to %q", to)
	}
}

// What is too old is asked to begin again.
func TestOA01AConsentThatTookTooLong(t *testing.T) {
	h := newHouse(t, options{})
	link, b := h.link(h.grant(alex), store.FlowConsent), h.browser()
	back := b.signIn(b.begin(link), sim.SignIn{Address: alex})
	h.ahead.Store(int64(11 * time.Minute))
	b.follow(b.get(back)).wants(t, http.StatusBadRequest, "This has to begin again", "ten minutes", "Begin again")
}

func TestWB07OnlyListedProxiesAreBelieved(t *testing.T) {
	for name, c := range map[string]struct{ remote, forwarded, trusted, want string }{
		"nobody listed":  {"192.0.2.1:99", "203.0.113.9", "", "192.0.2.1/32"},
		"a listed proxy": {"10.0.0.1:99", "198.51.100.7, 203.0.113.9", "10.0.0.0/8", "203.0.113.9/32"},
		"two of them":    {"10.0.0.1:99", "203.0.113.9, 10.0.0.2", "10.0.0.0/8", "203.0.113.9/32"},
		"nonsense":       {"10.0.0.1:99", "evil", "10.0.0.0/8", "10.0.0.1/32"},
		"six":            {"[2001:db8:1:2:3::1]:99", "", "", "2001:db8:1:2::/64"},
	} {
		if got := placeOf(t, c.remote, c.forwarded, c.trusted); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
