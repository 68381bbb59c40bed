package sim

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The control address is how a program of another language, or a person with
// curl, does what the methods of Sim and World do. It answers only on loopback
// listeners, and never to pages of other sites.

const controlMax = 64 << 20 // of a request body

// A controlRoute is one call below /_control, with what the index says of it.
type controlRoute struct {
	method, path, does string
	do                 func(*Sim, *controlCall) (any, error)
}

var controlRoutes []controlRoute

func init() {
	controlRoutes = []controlRoute{
		{"GET", "/", "this list", func(*Sim, *controlCall) (any, error) { return controlIndex(), nil }},

		{"GET", "/world", "the whole state, as a world file; ?format=yaml for YAML", (*Sim).controlWorld},
		{"PUT", "/world", "replaces the whole state; JSON or YAML", (*Sim).controlReplace},
		{"GET", "/knobs", "limits, lifetimes and manners", func(s *Sim, _ *controlCall) (any, error) { return s.world.Knobs(), nil }},
		{"PATCH", "/knobs", "changes some of them (JSON merge patch, RFC 7396)", (*Sim).controlKnobs},
		{"GET", "/tenants/{key}", "a tenant, by id or domain", (*Sim).controlTenant},
		{"PATCH", "/tenants/{key}", "changes it (JSON merge patch)", (*Sim).controlTenant},
		{"POST", "/tenants/{key}/users", "adds a user with a mailbox", (*Sim).controlAddUser},
		{"GET", "/users/{key}", "a user, by address, alias, UPN or object id", (*Sim).controlUser},
		{"PATCH", "/users/{key}", "changes it (JSON merge patch)", (*Sim).controlUser},
		{"POST", "/users/{key}/revoke", "ends all sessions and grants of a user", (*Sim).controlRevoke},
		{"GET", "/mailboxes/{key}", "a mailbox, by address or alias", (*Sim).controlMailbox},
		{"PATCH", "/mailboxes/{key}", "changes it (JSON merge patch); smtp_auth_disabled null inherits", (*Sim).controlMailbox},
		{"GET", "/mailboxes/{key}/folders", "its folders", (*Sim).controlFolders},
		{"POST", "/mailboxes/{key}/folders", `makes a folder: {"name"}, with "/" between levels`, (*Sim).controlFolders},
		{"DELETE", "/mailboxes/{key}/folders", "deletes one and what is in it: ?name=", (*Sim).controlFolders},
		{"POST", "/mailboxes/{key}/renumber", `gives a folder another UIDVALIDITY: {"folder"}, or the Inbox`, (*Sim).controlRenumber},
		{"GET", "/apps/{key}", "an app registration, by client id", (*Sim).controlApp},
		{"PATCH", "/apps/{key}", "changes it (JSON merge patch)", (*Sim).controlApp},
		{"POST", "/apps/{key}/secrets", `issues a secret; {"value","start","end"}, all optional`, (*Sim).controlSecret},
		{"POST", "/apps/{key}/secrets/{id}/expire", `ends a secret now, or {"at"}; id * is all`, (*Sim).controlExpireSecret},
		{"POST", "/apps/{key}/certificates", `issues a certificate; {"life"}; the answer has its private key`, (*Sim).controlCertificate},
		{"DELETE", "/apps/{key}/certificates/{id}", "takes a certificate away", (*Sim).controlDropCertificate},
		{"POST", "/consents", `grants {"tenant","user","app","scopes","roles"}; without user by the administrator`, (*Sim).controlConsent},
		{"DELETE", "/consents", "takes grants away: ?tenant=&app=, and ?user= for those of one user", (*Sim).controlDropConsents},

		{"GET", "/faults", "what is broken, and how often it struck", func(s *Sim, _ *controlCall) (any, error) { return s.Faults(), nil }},
		{"GET", "/faults/names", "the faults that have a name, and the points and deeds for others", (*Sim).controlFaultNames},
		{"POST", "/faults", `breaks something: {"name":"graph-429","times":2}, or {"point","do",…}`, (*Sim).controlFault},
		{"DELETE", "/faults", "mends everything", func(s *Sim, _ *controlCall) (any, error) { s.ClearFaults(); return nil, nil }},
		{"DELETE", "/faults/{name}", "mends one", func(s *Sim, c *controlCall) (any, error) { s.ClearFault(c.PathValue("name")); return nil, nil }},
		{"GET", "/triggers", "the plus-addresses that make mail go wrong", func(*Sim, *controlCall) (any, error) { return Triggers(), nil }},

		{"GET", "/mail", "messages, oldest first: ?mailbox=, ?folder= (its name, or as Graph calls it), ?raw=1; ?wait=5s&count=2 waits for so many", (*Sim).controlMail},
		{"POST", "/mail", "brings a message from outside, its bytes are the body: ?to=, and ?from= ?folder= ?flags= ?at= ?spf= ?dkim= ?dmarc= ?as_is=1", (*Sim).controlDeliver},
		{"GET", "/mail/{id}", "one message, by either of its ids", (*Sim).controlMessage},
		{"GET", "/mail/{id}/raw", "its bytes", (*Sim).controlMessage},
		{"PATCH", "/mail/{id}", `moves it or changes its flags: {"folder","flags"}`, (*Sim).controlChangeMail},
		{"DELETE", "/mail/{id}", "takes it away for good", func(s *Sim, c *controlCall) (any, error) { return nil, s.Expunge(c.PathValue("id")) }},
		{"DELETE", "/mail", "throws all mail away", func(s *Sim, _ *controlCall) (any, error) { s.ClearMail(); return nil, nil }},
		{"GET", "/subscriptions", "who hears of changes by Graph", func(s *Sim, _ *controlCall) (any, error) { return append([]Subscription{}, s.Subscriptions()...), nil }},
		{"POST", "/subscriptions/{id}/lifecycle", `tells its client of an event of its life: {"event":"missed"}, reauthorizationRequired or subscriptionRemoved`, (*Sim).controlLifecycle},
		{"GET", "/counts", "how often things happened", func(s *Sim, _ *controlCall) (any, error) { return s.Counts(), nil }},

		{"GET", "/clock", "the time of the imitated cloud", (*Sim).controlClock},
		{"POST", "/clock", `moves it forward: {"advance":"90m"}`, (*Sim).controlClock},
		{"POST", "/keys/roll", `takes the next signing key into use; {"emergency":true} withdraws all others`, (*Sim).controlRoll},
	}
}

func controlIndex() any {
	list := []map[string]string{}
	for _, r := range controlRoutes {
		list = append(list, map[string]string{"call": r.method + " " + ControlPath + r.path, "does": r.does})
	}
	return list
}

// ControlPath begins the paths of the control address, on HTTPS and HTTP.
const ControlPath = "/_control"

// ControlURL is where the state is read and changed by HTTP. It works only if
// the HTTP listener is on a loopback address.
func (s *Sim) ControlURL() string { return s.BrowserURL() + ControlPath }

// A controlCall is one request to the control address.
type controlCall struct {
	*http.Request
	body []byte
	w    http.ResponseWriter
}

func (s *Sim) controlRoutes(mux *http.ServeMux) {
	for _, route := range controlRoutes {
		pattern := route.method + " " + ControlPath + route.path
		if route.path == "/" {
			pattern += "{$}"
		}
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.control(w, r, route) })
	}
	mux.HandleFunc(ControlPath+"/", func(w http.ResponseWriter, r *http.Request) {
		controlRefuse(w, http.StatusNotFound, fmt.Errorf("there is no %s %s: GET %s/ lists what there is", r.Method, r.URL.Path, ControlPath))
	})
}

func (s *Sim) control(w http.ResponseWriter, r *http.Request, route controlRoute) {
	if err := fromThisMachine(r); err != nil {
		controlRefuse(w, http.StatusForbidden, err)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, controlMax))
	if err != nil {
		controlRefuse(w, http.StatusRequestEntityTooLarge, err)
		return
	}
	answer, err := route.do(s, &controlCall{r, body, w})
	switch {
	case errors.Is(err, errAnswered):
	case errors.Is(err, errNotThere):
		controlRefuse(w, http.StatusNotFound, err)
	case err != nil:
		controlRefuse(w, http.StatusBadRequest, err)
	case answer == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		writeJSON(w, http.StatusOK, answer)
	}
}

var (
	errAnswered = errors.New("the answer is written")
	errNotThere = errors.New("no such")
)

func controlRefuse(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]string{"error": err.Error()})
}

// fromThisMachine refuses listeners that others reach, names that a foreign
// site made to point here, and requests of pages that are not ours.
func fromThisMachine(r *http.Request) error {
	addr, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	local, err := netip.ParseAddrPort(fmt.Sprint(addr))
	if err != nil || !local.Addr().Unmap().IsLoopback() {
		return errors.New("the control address answers on loopback listeners only")
	}
	host := strings.Trim(r.Host, "[]")
	if name, _, err := net.SplitHostPort(r.Host); err == nil {
		host = name
	}
	if ip, err := netip.ParseAddr(host); !strings.EqualFold(host, "localhost") && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("the control address is not %q: call it localhost", r.Host)
	}
	return http.NewCrossOriginProtection().Check(r)
}

// read decodes the body strictly. An empty body is an empty object.
func (c *controlCall) read(into any) error {
	if len(bytes.TrimSpace(c.body)) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(c.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

// mergePatch changes item as RFC 7396 says. An unknown member is an error, and
// then nothing is changed.
func mergePatch[T any](item *T, patch []byte) error {
	var change map[string]any
	if err := json.Unmarshal(patch, &change); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	have, err := json.Marshal(item)
	if err != nil {
		return err
	}
	doc := map[string]any{}
	if err := json.Unmarshal(have, &doc); err != nil {
		return err
	}
	merged, err := json.Marshal(merge(doc, change))
	if err != nil {
		return err
	}
	next := new(T)
	dec := json.NewDecoder(bytes.NewReader(merged))
	dec.DisallowUnknownFields()
	if err := dec.Decode(next); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	*item = *next
	return nil
}

func merge(doc, change map[string]any) map[string]any {
	for k, v := range change {
		inner, isObject := v.(map[string]any)
		old, wasObject := doc[k].(map[string]any)
		switch {
		case v == nil:
			delete(doc, k)
		case isObject && wasObject:
			doc[k] = merge(old, inner)
		default:
			doc[k] = v
		}
	}
	return doc
}

// one shows an item, or changes it when the method is PATCH.
func one[T any](c *controlCall, what string, find func(string) (T, bool), change func(string, func(*T)) error) (any, error) {
	key := c.PathValue("key")
	if _, ok := find(key); !ok {
		return nil, fmt.Errorf("%w %s %q", errNotThere, what, key)
	}
	if c.Method == http.MethodPatch {
		var bad error
		id := key
		err := change(key, func(item *T) { bad = mergePatch(item, c.body) })
		if err := errors.Join(err, bad); err != nil {
			return nil, err
		}
		if item, ok := find(id); ok {
			return item, nil
		}
		return nil, nil // it has another name now
	}
	item, _ := find(key)
	return item, nil
}

func (s *Sim) controlTenant(c *controlCall) (any, error) {
	return one(c, "tenant", s.world.Tenant, s.world.ChangeTenant)
}

func (s *Sim) controlUser(c *controlCall) (any, error) {
	return one(c, "user", s.world.User, s.world.ChangeUser)
}

func (s *Sim) controlMailbox(c *controlCall) (any, error) {
	return one(c, "mailbox", s.world.Mailbox, s.world.ChangeMailbox)
}

func (s *Sim) controlApp(c *controlCall) (any, error) {
	return one(c, "app", s.world.App, s.world.ChangeApp)
}

func (s *Sim) controlWorld(c *controlCall) (any, error) {
	if c.URL.Query().Get("format") != "yaml" {
		return s.world.State(), nil
	}
	c.w.Header().Set("Content-Type", "application/yaml; charset=utf-8")
	if err := s.world.Write(c.w); err != nil {
		return nil, err
	}
	return nil, errAnswered
}

func (s *Sim) controlReplace(c *controlCall) (any, error) {
	state, err := parseState(c.body)
	if err != nil {
		return nil, err
	}
	return nil, s.world.Replace(state)
}

func (s *Sim) controlKnobs(c *controlCall) (any, error) {
	var bad error
	err := s.world.ChangeKnobs(func(k *Knobs) { bad = mergePatch(k, c.body) })
	return s.world.Knobs(), errors.Join(err, bad)
}

func (s *Sim) controlAddUser(c *controlCall) (any, error) {
	var u User
	if err := c.read(&u); err != nil {
		return nil, err
	}
	if _, ok := s.world.Tenant(c.PathValue("key")); !ok {
		return nil, fmt.Errorf("%w tenant %q", errNotThere, c.PathValue("key"))
	}
	if err := s.world.AddUser(c.PathValue("key"), u); err != nil {
		return nil, err
	}
	made, _ := s.world.User(u.Address)
	return made, nil
}

func (s *Sim) controlRevoke(c *controlCall) (any, error) {
	if _, ok := s.world.User(c.PathValue("key")); !ok {
		return nil, fmt.Errorf("%w user %q", errNotThere, c.PathValue("key"))
	}
	return nil, s.world.Revoke(c.PathValue("key"), s.Now())
}

func (s *Sim) controlSecret(c *controlCall) (any, error) {
	var secret Secret
	if err := c.read(&secret); err != nil {
		return nil, err
	}
	return s.IssueSecret(c.PathValue("key"), secret)
}

func (s *Sim) controlExpireSecret(c *controlCall) (any, error) {
	var req struct {
		At time.Time `json:"at"`
	}
	if err := c.read(&req); err != nil {
		return nil, err
	}
	if req.At.IsZero() {
		req.At = s.Now()
	}
	id := c.PathValue("id")
	if id == "*" {
		id = ""
	}
	app, ok := s.world.App(c.PathValue("key"))
	if !ok || id != "" && !app.hasSecret(id) {
		return nil, fmt.Errorf("%w secret %q of app %q", errNotThere, id, c.PathValue("key"))
	}
	return nil, s.world.ExpireSecret(app.ID, id, req.At)
}

func (s *Sim) controlCertificate(c *controlCall) (any, error) {
	var req struct {
		Life Duration `json:"life"`
	}
	if err := c.read(&req); err != nil {
		return nil, err
	}
	return s.IssueCertificate(c.PathValue("key"), time.Duration(req.Life))
}

func (s *Sim) controlDropCertificate(c *controlCall) (any, error) {
	return nil, s.RemoveCertificate(c.PathValue("key"), c.PathValue("id"))
}

func (s *Sim) controlConsent(c *controlCall) (any, error) {
	var req struct {
		Tenant string   `json:"tenant"`
		User   string   `json:"user"`
		App    string   `json:"app"`
		Scopes []string `json:"scopes"`
		Roles  []string `json:"roles"`
	}
	if err := c.read(&req); err != nil {
		return nil, err
	}
	if _, ok := s.world.App(req.App); !ok {
		return nil, fmt.Errorf("%w app %q", errNotThere, req.App)
	}
	return nil, s.world.Consent(req.Tenant, req.User, req.App, req.Scopes, req.Roles)
}

func (s *Sim) controlDropConsents(c *controlCall) (any, error) {
	q := c.URL.Query()
	return nil, s.world.RemoveConsents(q.Get("tenant"), q.Get("user"), q.Get("app"))
}

func (s *Sim) controlFaultNames(*controlCall) (any, error) {
	return map[string]any{"names": namedFaults, "points": points, "deeds": deeds, "lies": Lies}, nil
}

func (s *Sim) controlFault(c *controlCall) (any, error) {
	var f Fault
	if err := c.read(&f); err != nil {
		return nil, err
	}
	if err := s.SetFault(f); err != nil {
		return nil, err
	}
	list := s.Faults()
	return list[len(list)-1], nil
}

// controlMail lists messages, and waits for them when it is asked to.
func (s *Sim) controlMail(c *controlCall) (any, error) {
	q := c.URL.Query()
	box, folder := s.mailboxOf(q.Get("mailbox")), q.Get("folder")
	count, err := strconv.Atoi(cmp.Or(q.Get("count"), "1"))
	if err != nil {
		return nil, fmt.Errorf("count %q is not a number", q.Get("count"))
	}
	wait, err := time.ParseDuration(cmp.Or(q.Get("wait"), "0s"))
	if err != nil {
		return nil, fmt.Errorf("wait %q: write it as 5s", q.Get("wait"))
	}
	give := time.NewTimer(wait)
	defer give.Stop()
	for {
		changed := s.mail.arrivals()
		list := []Message{}
		for _, m := range s.AllMail() {
			if (q.Get("mailbox") == "" || m.Mailbox == box) && (folder == "" || strings.EqualFold(m.Folder, folder) || strings.EqualFold(m.folder.use, folder)) {
				list = append(list, m)
			}
		}
		if len(list) >= count || wait == 0 {
			return withoutRaw(list, q.Get("raw") != ""), nil
		}
		select {
		case <-changed:
		case <-give.C:
			return withoutRaw(list, q.Get("raw") != ""), nil
		case <-c.Context().Done():
			return nil, errAnswered
		}
	}
}

// controlDeliver brings a message from outside.
func (s *Sim) controlDeliver(c *controlCall) (any, error) {
	q := c.URL.Query()
	d := Delivery{To: q.Get("to"), From: q.Get("from"), Raw: c.body, Folder: q.Get("folder"), Flags: strings.Fields(q.Get("flags")),
		SPF: q.Get("spf"), DKIM: q.Get("dkim"), DMARC: q.Get("dmarc"), AsIs: q.Get("as_is") != ""}
	if text := q.Get("at"); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, fmt.Errorf("at %q: write it as 2026-11-24T09:00:00Z", text)
		}
		d.At = at
	}
	m, err := s.DeliverMail(d)
	if err != nil {
		return nil, err
	}
	return withoutRaw([]Message{m}, false)[0], nil
}

// controlChangeMail moves a message, or changes its flags.
func (s *Sim) controlChangeMail(c *controlCall) (any, error) {
	var req struct {
		Folder string    `json:"folder"`
		Flags  *[]string `json:"flags"`
	}
	if err := c.read(&req); err != nil {
		return nil, err
	}
	m, ok := s.messageByID(c.PathValue("id"))
	if !ok {
		return nil, fmt.Errorf("%w message %q", errNotThere, c.PathValue("id"))
	}
	if req.Flags != nil {
		if err := s.SetFlags(m.ImmutableID, *req.Flags...); err != nil {
			return nil, err
		}
	}
	if req.Folder != "" {
		if _, err := s.Move(m.ImmutableID, req.Folder); err != nil {
			return nil, err
		}
	}
	m, _ = s.messageByID(m.ImmutableID)
	return withoutRaw([]Message{m}, false)[0], nil
}

func (s *Sim) messageByID(id string) (Message, bool) {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	if m := s.mail.byID(id); m != nil {
		return *m, true
	}
	return Message{}, false
}

// controlFolders lists folders, makes one or deletes one.
func (s *Sim) controlFolders(c *controlCall) (any, error) {
	key := c.PathValue("key")
	if _, ok := s.world.Mailbox(key); !ok {
		return nil, fmt.Errorf("%w mailbox %q", errNotThere, key)
	}
	switch c.Method {
	case http.MethodPost:
		var req struct {
			Name string `json:"name"`
		}
		if err := c.read(&req); err != nil {
			return nil, err
		}
		if err := s.MakeFolder(key, req.Name); err != nil {
			return nil, err
		}
	case http.MethodDelete:
		return nil, s.RemoveFolder(key, c.URL.Query().Get("name"))
	}
	return s.Folders(key), nil
}

func (s *Sim) controlLifecycle(c *controlCall) (any, error) {
	var req struct {
		Event string `json:"event"`
	}
	if err := c.read(&req); err != nil {
		return nil, err
	}
	return nil, s.Lifecycle(c.PathValue("id"), req.Event)
}

func (s *Sim) controlRenumber(c *controlCall) (any, error) {
	var req struct {
		Folder string `json:"folder"`
	}
	if err := c.read(&req); err != nil {
		return nil, err
	}
	return nil, s.ResetUIDValidity(c.PathValue("key"), req.Folder)
}

func withoutRaw(list []Message, keep bool) []Message {
	for i := range list {
		if !keep {
			list[i].Raw = nil
		}
	}
	return list
}

func (s *Sim) controlMessage(c *controlCall) (any, error) {
	m, ok := s.messageByID(c.PathValue("id"))
	if !ok {
		return nil, fmt.Errorf("%w message %q", errNotThere, c.PathValue("id"))
	}
	if strings.HasSuffix(c.URL.Path, "/raw") {
		writeRaw(c.w, m)
		return nil, errAnswered
	}
	return m, nil
}

// writeRaw sends a message as a file that no browser shows.
func writeRaw(w http.ResponseWriter, m Message) {
	h := w.Header()
	h.Set("Content-Type", "message/rfc822")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": fileNameOf(m.Subject) + ".eml"}))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(m.Raw)))
	w.Write(m.Raw)
}

// fileNameOf leaves letters, digits and a few marks of a subject.
func fileNameOf(subject string) string {
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:*?"<>|`, r) || r < ' ' {
			return '-'
		}
		return r
	}, subject)
	if runes := []rune(strings.TrimSpace(name)); len(runes) > 60 {
		name = string(runes[:60])
	}
	return cmp.Or(strings.Trim(name, ". "), "message")
}

func (s *Sim) controlClock(c *controlCall) (any, error) {
	var req struct {
		Advance Duration `json:"advance"`
	}
	if c.Method == http.MethodPost {
		if err := c.read(&req); err != nil {
			return nil, err
		}
		if req.Advance < 0 {
			return nil, errors.New("time goes forward only")
		}
		s.Advance(time.Duration(req.Advance))
	}
	return map[string]time.Time{"now": s.Now().UTC()}, nil
}

func (s *Sim) controlRoll(c *controlCall) (any, error) {
	var req struct {
		Emergency bool `json:"emergency"`
	}
	if err := c.read(&req); err != nil {
		return nil, err
	}
	return nil, s.RollKeys(req.Emergency)
}
