package sim

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The graph part is Microsoft Graph as far as mail needs it: who am I, who is
// there, sendMail, drafts with files, folders, messages, what changed in them,
// and notifications of that.
type graph struct {
	sim *Sim

	mu      sync.Mutex
	open    map[string]int          // requests under way, by app and mailbox
	asked   map[string][]recipients // requests of ten minutes, by app and mailbox
	sent    map[string][]recipients // bytes uploaded in five minutes, the same
	uploads map[string]*upload
	hooks   *hooks
}

func newGraph(s *Sim) *graph {
	return &graph{sim: s,
		open:    map[string]int{},
		asked:   map[string][]recipients{},
		sent:    map[string][]recipients{},
		uploads: map[string]*upload{},
		hooks:   newHooks(s),
	}
}

// Texts that other parts of the sim use as well.
const (
	graphDeniedText     = "Access is denied. Check credentials and try again."
	graphSendAsText     = "The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account."
	graphSizeText       = "The message exceeds the maximum supported size."
	graphRecipientsText = "At least one recipient is not valid."
	graphQuotaText      = "The message submission quota has been exceeded."
	graphBodyText       = "The maximum request length supported is 4MB."
	graphCrowdedText    = "Application is over its MailboxConcurrency limit."
)

// A graphRoute is one call. Below says whether it lies below a mailbox: then
// path begins behind /me or /users/{user}.
type graphRoute struct {
	method, path string
	below        bool
	point        string
	need         need
	do           func(*graphCall) *graphError
}

var graphRoutes = []graphRoute{
	{"GET", "", true, "graph.me", needUser, (*graphCall).user},
	{"GET", "users", false, "graph.users", needDirectory, (*graphCall).users},
	{"POST", "sendMail", true, "graph.sendMail", needSend, (*graphCall).sendMail},
	{"GET", "messages", true, "graph.find", needRead, (*graphCall).find},
	{"POST", "messages", true, "graph.createDraft", needWrite, (*graphCall).createDraft},
	{"GET", "messages/{id}", true, "graph.get", needRead, (*graphCall).get},
	{"GET", "messages/{id}/$value", true, "graph.get", needBody, (*graphCall).getMIME},
	{"PATCH", "messages/{id}", true, "graph.update", needWrite, (*graphCall).update},
	{"DELETE", "messages/{id}", true, "graph.delete", needWrite, (*graphCall).delete},
	{"POST", "messages/{id}/move", true, "graph.move", needWrite, (*graphCall).move},
	{"POST", "messages/{id}/copy", true, "graph.move", needWrite, (*graphCall).move},
	{"POST", "translateExchangeIds", true, "graph.translate", needRead, (*graphCall).translateIDs},
	{"POST", "messages/{id}/send", true, "graph.send", needSend, (*graphCall).sendDraft},
	{"GET", "messages/{id}/attachments", true, "graph.get", needBody, (*graphCall).attachments},
	{"POST", "messages/{id}/attachments", true, "graph.attach", needWrite, (*graphCall).attach},
	{"POST", "messages/{id}/attachments/createUploadSession", true, "graph.createUploadSession", needWrite, (*graphCall).createUpload},
	{"GET", "mailFolders", true, "graph.find", needRead, (*graphCall).folders},
	{"POST", "mailFolders", true, "graph.createFolder", needWrite, (*graphCall).createFolder},
	{"GET", "mailFolders/{folder}", true, "graph.find", needRead, (*graphCall).folder},
	{"GET", "mailFolders/{folder}/childFolders", true, "graph.find", needRead, (*graphCall).folders},
	{"POST", "mailFolders/{folder}/childFolders", true, "graph.createFolder", needWrite, (*graphCall).createFolder},
	{"GET", "mailFolders/{folder}/messages/delta", true, "graph.delta", needRead, (*graphCall).delta},
	{"GET", "mailFolders/{folder}/messages", true, "graph.find", needRead, (*graphCall).find},
	{"GET", "mailFolders/{folder}/messages/{id}", true, "graph.get", needRead, (*graphCall).get},
	{"GET", "mailFolders/{folder}/messages/{id}/$value", true, "graph.get", needBody, (*graphCall).getMIME},
	{"PATCH", "mailFolders/{folder}/messages/{id}", true, "graph.update", needWrite, (*graphCall).update},
	{"DELETE", "mailFolders/{folder}/messages/{id}", true, "graph.delete", needWrite, (*graphCall).delete},
	{"GET", "subscriptions", false, "graph.subscription", needHooks, (*graphCall).subscriptions},
	{"POST", "subscriptions", false, "graph.subscribe", needHooks, (*graphCall).subscribe},
	{"GET", "subscriptions/{id}", false, "graph.subscription", needHooks, (*graphCall).showSubscription},
	{"PATCH", "subscriptions/{id}", false, "graph.renew", needHooks, (*graphCall).renewSubscription},
	{"DELETE", "subscriptions/{id}", false, "graph.unsubscribe", needHooks, (*graphCall).unsubscribe},
	{"POST", "subscriptions/{id}/reauthorize", false, "graph.renew", needHooks, (*graphCall).reauthorize},
}

// A graphCall is one request to Graph.
type graphCall struct {
	*http.Request
	g     *graph
	w     http.ResponseWriter
	v     *view
	route *graphRoute
	args  map[string]string
	key   string // user in the path; "" is me

	tok     *token
	caller  *User // nil for an app
	tenant  *Tenant
	mailbox *Mailbox
	body    []byte
}

func (g *graph) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/upload/{id}", g.upload)
	mux.HandleFunc("/oidc/userinfo", g.userInfo)
	mux.HandleFunc("/", g.serve)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("request-id", newGUID())
		h.Set("client-request-id", cmp.Or(r.Header.Get("client-request-id"), h.Get("request-id")))
		h.Set("x-ms-ags-diagnostic", `{"ServerInfo":{"DataCenter":"Imitation","Slice":"E","Ring":"0","ScaleUnit":"000","RoleInstance":"SIM"}}`)
		mux.ServeHTTP(w, r)
	})
}

// serve answers what lies below /v1.0 and /beta.
func (g *graph) serve(w http.ResponseWriter, r *http.Request) {
	c := &graphCall{Request: r, g: g, w: w, v: g.sim.world.now.Load()}
	e := c.match()
	if c.route == nil {
		c.refuse(e)
		return
	}
	g.sim.counts.add(c.route.point)
	e = c.open()
	if e == nil && c.mailbox != nil {
		if e = g.enter(c.v.Knobs, c.limitKey()); e == nil {
			defer g.leave(c.limitKey())
		}
	}
	f := g.sim.faults.take(c.route.point, c.about()...)
	if f == nil && strings.Contains(c.key, "+") && c.route.point != "graph.sendMail" && c.route.point != "graph.send" {
		f = g.sim.faults.graphTrigger(c.key)
	}
	g.sim.faults.strike(w, r, f, func(w http.ResponseWriter, _ *http.Request) {
		c.w = w
		if e == nil {
			e = c.answer()
		}
		if e != nil {
			c.refuse(e)
		}
	}, g.faultStatus)
}

// match finds the route of the path. Like Graph it does not mind the case of
// the fixed segments.
func (c *graphCall) match() *graphError {
	segments := strings.Split(strings.Trim(c.URL.Path, "/"), "/")
	if v := strings.ToLower(segments[0]); v != "v1.0" && v != "beta" {
		return &graphError{status: 404, code: "ResourceNotFound", text: "Resource not found for the segment '" + segments[0] + "'."}
	}
	segments = unquoted(segments[1:])
	below := false
	switch {
	case len(segments) > 0 && strings.EqualFold(segments[0], "me"):
		below, segments = true, segments[1:]
	case len(segments) > 1 && strings.EqualFold(segments[0], "users"):
		below, c.key, segments = true, segments[1], segments[2:]
	}
	known := false
	for i := range graphRoutes {
		route := &graphRoutes[i]
		args, ok := matchPath(route.path, segments)
		if route.below != below || !ok {
			continue
		}
		known = true
		if route.method == c.Method {
			c.route, c.args = route, args
			return nil
		}
	}
	if known {
		return &graphError{status: 405, code: "Request_BadRequest", text: "Specified HTTP method is not allowed for the request target."}
	}
	return &graphError{status: 400, code: "BadRequest", text: "Resource not found for the segment '" + strings.Join(segments, "/") + "'."}
}

func matchPath(pattern string, segments []string) (map[string]string, bool) {
	if pattern == "" {
		return nil, len(segments) == 0
	}
	want := strings.Split(pattern, "/")
	if len(want) != len(segments) {
		return nil, false
	}
	args := map[string]string{}
	for i, p := range want {
		if name, ok := strings.CutPrefix(p, "{"); ok {
			args[strings.TrimSuffix(name, "}")] = segments[i]
		} else if !strings.EqualFold(p, segments[i]) {
			return nil, false
		}
	}
	return args, true
}

// unquoted takes keys in parentheses apart: mailFolders('Inbox') is
// mailFolders/Inbox.
func unquoted(segments []string) []string {
	var all []string
	for _, s := range segments {
		name, key, ok := strings.Cut(s, "('")
		if key, closed := strings.CutSuffix(key, "')"); ok && closed {
			all = append(all, name, key)
			continue
		}
		all = append(all, s)
	}
	return all
}

// about is what a fault of this call may be limited to.
func (c *graphCall) about() []string {
	list := []string{c.key}
	if c.tok != nil {
		list = append(list, c.tok.AppID, c.tok.UPN)
	}
	if c.mailbox != nil {
		list = append(list, c.mailbox.Address)
	}
	return list
}

func (c *graphCall) limitKey() string { return c.tok.AppID + "|" + strings.ToLower(c.mailbox.Address) }

// answer reads the body and does what was asked.
func (c *graphCall) answer() *graphError {
	var e *graphError
	if c.body, e = c.readBody(c.v.Knobs.GraphBody); e != nil {
		return e
	}
	return c.route.do(c)
}

// readBody takes a body up to a limit. Of more the rest is read away, so that
// the client hears the answer.
func (c *graphCall) readBody(limit int64) ([]byte, *graphError) {
	if limit < 0 {
		limit = 1 << 30
	}
	body, err := io.ReadAll(io.LimitReader(c.Body, limit+1))
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away
	}
	if int64(len(body)) > limit {
		io.CopyN(io.Discard, c.Body, 256<<20)
		return nil, &graphError{status: 400, code: "BadRequest", text: graphBodyText}
	}
	return body, nil
}

// enter counts a request of an app on a mailbox, or says that it is one too
// many: at a time, or in ten minutes.
func (g *graph) enter(k Knobs, key string) *graphError {
	g.mu.Lock()
	defer g.mu.Unlock()
	retry := time.Duration(k.GraphRetryAfter)
	if over(g.open[key]+1, k.GraphConcurrency) {
		g.sim.counts.add("graph.429")
		return &graphError{status: 429, code: "ApplicationThrottled", text: graphCrowdedText, retry: retry}
	}
	if !book(g.asked, key, g.sim.Now(), 10*time.Minute, 1, k.GraphRequests) {
		g.sim.counts.add("graph.429")
		return &graphError{status: 429, code: "TooManyRequests", text: "Too many requests.", retry: retry}
	}
	g.open[key]++
	return nil
}

func (g *graph) leave(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open[key]--; g.open[key] <= 0 {
		delete(g.open, key)
	}
}

// book enters n into a rolling window unless that goes over its limit. What
// falls into the same second is one entry.
func book(books map[string][]recipients, key string, now time.Time, span time.Duration, n, limit int) bool {
	list, sum := books[key], 0
	for len(list) > 0 && now.Sub(list[0].at) >= span {
		list = list[1:]
	}
	for _, r := range list {
		sum += r.n
	}
	books[key] = list
	if over(sum+n, limit) {
		return false
	}
	if last := len(list) - 1; last >= 0 && now.Sub(list[last].at) < time.Second {
		list[last].n += n
		return true
	}
	books[key] = append(list, recipients{now, n})
	return true
}

// A graphError is one of Graph's errors.
type graphError struct {
	status    int
	code      string
	text      string
	retry     time.Duration
	challenge string // WWW-Authenticate
}

func (c *graphCall) refuse(e *graphError) { c.g.refuse(c.w, e) }

func (g *graph) refuse(w http.ResponseWriter, e *graphError) {
	g.sim.counts.add("graph.error." + e.code)
	h := w.Header()
	if e.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(max(1, int(e.retry.Seconds()))))
	}
	if e.challenge != "" {
		h.Set("WWW-Authenticate", e.challenge)
	}
	writeJSON(w, e.status, map[string]any{"error": map[string]any{
		"code":    e.code,
		"message": e.text,
		"innerError": map[string]string{
			"date":              g.sim.Now().UTC().Format("2006-01-02T15:04:05"),
			"request-id":        h.Get("request-id"),
			"client-request-id": h.Get("client-request-id"),
		},
	}})
}

// faultStatus answers a fault as Graph would.
func (g *graph) faultStatus(w http.ResponseWriter, _ *http.Request, f *Fault) {
	status := orStatus(f.Status, http.StatusServiceUnavailable)
	e := &graphError{status: status, code: cmp.Or(f.Code, "UnknownError"), text: f.Text}
	if status == http.StatusUnauthorized {
		e.challenge = g.challenge("", "")
	}
	g.refuse(w, e)
}

func (g *graph) challenge(err, claims string) string {
	c := fmt.Sprintf(`Bearer realm="", authorization_uri="%s/common/oauth2/authorize", client_id="%s"`, g.sim.LoginURL(), graphResource.appID)
	if err != "" {
		c += fmt.Sprintf(`, error="%s", claims="%s"`, err, claims)
	}
	return c
}
