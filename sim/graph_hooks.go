package sim

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Change notifications: Graph calls an address of the client when something
// happens to its mail. Nothing leaves this machine, so the address must be of
// it. It is called by https, and its certificate must be good: by one of the
// system's authorities, the sim's own, or one of Config.Trust.

// A Subscription is one client that wants to hear of changes.
type Subscription struct {
	ID           string    `json:"id"`
	App          string    `json:"application_id"`
	Tenant       string    `json:"tenant_id"`
	Mailbox      string    `json:"mailbox"`
	Folder       string    `json:"folder,omitempty"` // "" = all of them
	Resource     string    `json:"resource"`
	Changes      []string  `json:"changes"` // created, updated, deleted
	URL          string    `json:"notification_url"`
	LifecycleURL string    `json:"lifecycle_notification_url,omitempty"`
	ClientState  string    `json:"client_state,omitempty"`
	Immutable    bool      `json:"immutable_ids,omitempty"`
	Expires      time.Time `json:"expires"`

	creator string  // object id
	user    string  // object id of the mailbox
	folder  *folder // nil = all
}

// The events of the life of a subscription.
const (
	LifecycleReauthorize = "reauthorizationRequired"
	LifecycleRemoved     = "subscriptionRemoved"
	LifecycleMissed      = "missed"
)

// hooks has all subscriptions, and what is still to be told to each address.
type hooks struct {
	sim     *Sim
	client  *http.Client
	workers sync.WaitGroup

	mu     sync.Mutex
	byID   map[string]*Subscription
	byBox  map[string][]*Subscription
	queues map[string][]notification // by address; there is a worker while there is one
	closed bool
}

// A notification is one thing to tell, in the form in which it is sent.
type notification struct {
	about string // address of the mailbox
	app   string
	doc   map[string]any
}

func newHooks(s *Sim) *hooks {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			return fmt.Errorf("%s is not this machine: the imitation sends nothing elsewhere", host)
		}
		return nil
	}}
	h := &hooks{sim: s, byID: map[string]*Subscription{}, byBox: map[string][]*Subscription{}, queues: map[string][]notification{},
		client: &http.Client{
			Transport:     &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: s.roots}},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}}
	s.mail.tell = h.tell
	return h
}

func (h *hooks) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.workers.Wait()
	h.client.CloseIdleConnections()
}

// Subscriptions lists those of Graph that have not ended.
func (s *Sim) Subscriptions() []Subscription {
	h := s.graph.hooks
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []Subscription
	for _, sub := range h.byID {
		if s.Now().Before(sub.Expires) {
			list = append(list, *sub)
		}
	}
	slices.SortFunc(list, func(a, b Subscription) int { return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.ID, b.ID)) })
	return list
}

// Lifecycle tells the client of a subscription of an event of its life:
// LifecycleMissed and the like. The subscription is gone after
// LifecycleRemoved.
func (s *Sim) Lifecycle(id, event string) error {
	h := s.graph.hooks
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := h.byID[id]
	switch {
	case sub == nil:
		return fmt.Errorf("%w subscription %q", errNotThere, id)
	case !slices.Contains([]string{LifecycleReauthorize, LifecycleRemoved, LifecycleMissed}, event):
		return fmt.Errorf("unknown event %q", event)
	case sub.LifecycleURL == "":
		return errors.New("the subscription has no lifecycleNotificationUrl")
	}
	if event == LifecycleRemoved {
		h.remove(sub)
	}
	h.enqueue(sub.LifecycleURL, notification{sub.Mailbox, sub.App, map[string]any{
		"lifecycleEvent": event, "subscriptionId": sub.ID, "resource": sub.Resource, "clientState": orNull(sub.ClientState),
		"subscriptionExpirationDateTime": graphMoment(sub.Expires), "tenantId": sub.Tenant, "organizationId": sub.Tenant,
	}})
	return nil
}

// add begins a subscription unless its mailbox has as many as it may.
func (h *hooks) add(sub *Subscription, limit int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.sim.Now()
	for _, o := range slices.Clone(h.byBox[sub.Mailbox]) {
		if !now.Before(o.Expires) {
			h.remove(o)
		}
	}
	if over(len(h.byBox[sub.Mailbox])+1, limit) {
		return false
	}
	h.byID[sub.ID] = sub
	h.byBox[sub.Mailbox] = append(h.byBox[sub.Mailbox], sub)
	return true
}

func (h *hooks) remove(sub *Subscription) {
	delete(h.byID, sub.ID)
	left := slices.DeleteFunc(h.byBox[sub.Mailbox], func(o *Subscription) bool { return o == sub })
	if h.byBox[sub.Mailbox] = left; len(left) == 0 {
		delete(h.byBox, sub.Mailbox)
	}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func graphMoment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

// tell is called by the store, with its lock held, for each change of a
// message.
func (h *hooks) tell(what string, m *Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Time{}
	for _, sub := range slices.Clone(h.byBox[m.Mailbox]) {
		if now.IsZero() {
			now = h.sim.Now()
		}
		if !now.Before(sub.Expires) {
			h.remove(sub)
			continue
		}
		if !slices.Contains(sub.Changes, what) || sub.folder != nil && sub.folder.id != m.folder.id {
			continue
		}
		id := m.ID
		if sub.Immutable {
			id = m.ImmutableID
		}
		at := "Users/" + sub.user + "/Messages/" + id
		h.enqueue(sub.URL, notification{sub.Mailbox, sub.App, map[string]any{
			"subscriptionId": sub.ID, "subscriptionExpirationDateTime": graphMoment(sub.Expires), "clientState": orNull(sub.ClientState),
			"changeType": what, "resource": at, "tenantId": sub.Tenant,
			"resourceData": map[string]any{"@odata.type": "#Microsoft.Graph.Message", "@odata.id": at, "@odata.etag": `W/"` + m.changeKey() + `"`, "id": id},
		}})
	}
}

// notifyQueue bounds what waits for an address that does not answer. Like the
// real service it is not told of the rest.
const notifyQueue = 10_000

// enqueue lets the worker of an address have one more, and starts it.
func (h *hooks) enqueue(to string, n notification) {
	if h.closed || h.sim.ctx.Err() != nil {
		return
	}
	if len(h.queues[to]) >= notifyQueue {
		h.sim.counts.add("graph.notifications_lost")
		return
	}
	_, working := h.queues[to]
	h.queues[to] = append(h.queues[to], n)
	if !working {
		h.workers.Go(func() { h.work(to) })
	}
}

const notifyBatch = 100

// work sends what is to be told to an address, in order, until that is all.
func (h *hooks) work(to string) {
	for {
		h.mu.Lock()
		queue := h.queues[to]
		if len(queue) == 0 || h.sim.ctx.Err() != nil {
			delete(h.queues, to)
			h.mu.Unlock()
			return
		}
		batch := slices.Clone(queue[:min(len(queue), notifyBatch)])
		h.queues[to] = queue[len(batch):]
		h.mu.Unlock()
		h.deliver(to, batch)
	}
}

// deliver sends notifications, with the fault that strikes them, and tries
// again while the client does not answer well.
func (h *hooks) deliver(to string, batch []notification) {
	s := h.sim
	docs, times := []map[string]any{}, 1
	for _, n := range batch {
		doc := n.doc
		switch f := s.faults.take("notify", n.about, n.app); {
		case f == nil:
		case f.Do == DoClose || f.Do == DoLost:
			s.counts.add("graph.notifications_lost")
			continue
		case f.Do == DoTwice:
			times = 2
		case f.Do == DoSlow:
			if s.clock.sleep(s.ctx, f.delay(s.world.Knobs().SlowBy)) != nil {
				return
			}
		case f.Do == DoEdit:
			doc = maps.Clone(doc)
			maps.Copy(doc, f.Edit)
		}
		docs = append(docs, doc)
	}
	if len(docs) == 0 {
		return
	}
	body, err := json.Marshal(map[string]any{"value": docs})
	if err != nil {
		panic(err) // plain values
	}
	for range times {
		h.post(to, body)
	}
}

func (h *hooks) post(to string, body []byte) {
	s := h.sim
	start, wait := s.Now(), time.Duration(s.world.Knobs().GraphNotifyRetry)
	for {
		k := s.world.Knobs()
		status, err := h.call(to, "application/json; charset=utf-8", body, k.GraphNotifyTimeout, nil)
		if err == nil && status/100 == 2 {
			s.counts.add("graph.notifications")
			return
		}
		again := s.Now().Add(wait)
		s.counts.add("graph.notifications_failed") // a test that waits for it may move the clock now
		s.log.Debug("a notification was not taken", "to", to, "status", status, "err", err)
		if wait <= 0 || over(int64(again.Sub(start)), int64(k.GraphNotifyGiveUp)) || s.clock.wait(s.ctx, again) != nil {
			return
		}
		wait *= 2
	}
}

// call posts to an address of a client. Check is given the answer.
func (h *hooks) call(to, kind string, body []byte, within Duration, check func(*http.Response, []byte)) (int, error) {
	ctx := h.sim.ctx
	if within >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(within))
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("User-Agent", "Mozilla/5.0 (compatible; MicrosoftGraph; imitation)")
	res, err := h.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return 0, err
	}
	if check != nil {
		check(res, answer)
	}
	return res.StatusCode, nil
}

// hookUntrustedText is what Graph says of an address that it gets no TLS
// connection with.
const hookUntrustedText = "HttpRequestException: An error occurred while sending the request. WebException: The request was aborted: Could not create SSL/TLS secure channel."

// validate asks an address whether it is the client's: it says a token, and
// the client must say it again.
func (h *hooks) validate(to string) *graphError {
	token := "Validation: Testing client application reachability for subscription Request-Id: " + newGUID()
	at, err := url.Parse(to)
	if err != nil {
		return subscriptionError("The notificationUrl is not valid.")
	}
	q := at.Query()
	q.Set("validationToken", token)
	at.RawQuery = q.Encode()
	h.sim.counts.add("graph.validations")
	good, kind := false, ""
	status, err := h.call(at.String(), "text/plain; charset=utf-8", nil, h.sim.world.Knobs().GraphValidation, func(res *http.Response, body []byte) {
		kind, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type"))
		good = string(body) == token
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return subscriptionError("Subscription validation request timed out.")
	case errors.As(err, new(*tls.CertificateVerificationError)):
		h.sim.log.Warn("a notification address has no good certificate", "to", to, "err", err)
		return subscriptionError(hookUntrustedText)
	case err != nil:
		h.sim.log.Debug("a validation failed", "to", to, "err", err)
		return subscriptionError("Subscription validation request failed. Unable to connect to the notification endpoint.")
	case status != http.StatusOK:
		return subscriptionError(fmt.Sprintf("Subscription validation request failed. HTTP status code is '%s'. Notification endpoint must respond with 200 OK to validation request.",
			strings.ReplaceAll(http.StatusText(status), " ", "")))
	case !good || kind != "text/plain":
		return subscriptionError("Subscription validation request failed. Response must exactly match validationToken query parameter.")
	}
	return nil
}

func subscriptionError(text string) *graphError {
	return &graphError{status: 400, code: "ValidationError", text: text}
}

// A subscriptionDoc is a subscription as a client writes it.
type subscriptionDoc struct {
	ChangeType, Resource, NotificationURL, LifecycleNotificationURL, ClientState, ExpirationDateTime string
	IncludeResourceData                                                                              bool
}

// subscribe makes a subscription once its addresses were validated.
func (c *graphCall) subscribe() *graphError {
	var req subscriptionDoc
	if e := c.readJSON(&req); e != nil {
		return e
	}
	sub := &Subscription{ID: newGUID(), App: c.tok.AppID, Tenant: c.tenant.ID, Resource: req.Resource, URL: req.NotificationURL,
		LifecycleURL: req.LifecycleNotificationURL, ClientState: req.ClientState, Immutable: c.immutable(), creator: c.tok.ObjectID}
	for what := range strings.SplitSeq(strings.ToLower(req.ChangeType), ",") {
		if what = strings.TrimSpace(what); !slices.Contains([]string{itCame, itChanged, itLeft}, what) {
			return subscriptionError("Invalid 'changeType' attribute: '" + req.ChangeType + "'.")
		}
		sub.Changes = append(sub.Changes, what)
	}
	switch {
	case req.IncludeResourceData:
		return subscriptionError("includeResourceData is not imitated here.")
	case len(req.ClientState) > 128:
		return subscriptionError("The clientState property must not be longer than 128 characters.")
	case !goodHook(sub.URL), sub.LifecycleURL != "" && !goodHook(sub.LifecycleURL):
		return subscriptionError("Notification URLs must begin with https.")
	}
	if e := sub.expire(c, req.ExpirationDateTime); e != nil {
		return e
	}
	if e := c.resource(sub); e != nil {
		return e
	}
	h := c.g.hooks
	if e := h.validate(sub.URL); e != nil {
		return e
	}
	if sub.LifecycleURL != "" && sub.LifecycleURL != sub.URL {
		if e := h.validate(sub.LifecycleURL); e != nil {
			return e
		}
	}
	doc := c.subscriptionJSON(sub)
	if !h.add(sub, c.v.Knobs.GraphSubscriptions) {
		return &graphError{status: 403, code: "ExtensionError", text: "Operation: Create; Exception: [Status Code: Forbidden; Reason: Subscription count limit is reached for the mailbox.]"}
	}
	c.json(http.StatusCreated, doc)
	return nil
}

// goodHook takes https alone.
func goodHook(to string) bool {
	u, err := url.Parse(to)
	return err == nil && u.Scheme == "https" && u.Host != ""
}

// expire sets when a subscription ends.
func (sub *Subscription) expire(c *graphCall, text string) *graphError {
	at, err := time.Parse(time.RFC3339, text)
	now, k := c.g.sim.Now(), c.v.Knobs
	switch {
	case err != nil:
		return subscriptionError("The expirationDateTime is missing or malformed.")
	case !at.After(now):
		return subscriptionError("Subscription expiration must be in the future.")
	case over(int64(at.Sub(now)), int64(k.GraphSubscriptionMax)):
		return subscriptionError(fmt.Sprintf("Subscription expiration can only be %d minutes in the future.", int(time.Duration(k.GraphSubscriptionMax).Minutes())))
	}
	sub.Expires = at
	if least := now.Add(time.Duration(k.GraphSubscriptionMin)); at.Before(least) {
		sub.Expires = least
	}
	return nil
}

// resource finds the mailbox and the folder of a subscription, and whether the
// caller may read them.
func (c *graphCall) resource(sub *Subscription) *graphError {
	parts := unquoted(strings.Split(strings.Trim(sub.Resource, "/"), "/"))
	if len(parts) > 0 && (strings.EqualFold(parts[0], "v1.0") || strings.EqualFold(parts[0], "beta")) {
		parts = parts[1:]
	}
	switch {
	case len(parts) > 0 && strings.EqualFold(parts[0], "me") && c.caller != nil:
		c.key, parts = "", parts[1:]
	case len(parts) > 1 && strings.EqualFold(parts[0], "users") && parts[1] != "":
		c.key, parts = parts[1], parts[2:]
	default:
		return subscriptionError("Invalid resource '" + sub.Resource + "'.")
	}
	if e := c.findMailbox(); e != nil {
		return e
	}
	read := *c.route
	read.need = needRead
	c.route = &read
	may := c.appMay
	if c.caller != nil {
		may = c.userMay
	}
	if e := may(); e != nil {
		return e
	}
	sub.Mailbox, sub.user = strings.ToLower(c.mailbox.Address), c.mailbox.objectID()
	if at, ok := c.v.users[sub.Mailbox]; ok {
		sub.user = at.item.ID
	}
	if len(parts) == 3 && strings.EqualFold(parts[0], "mailFolders") && strings.EqualFold(parts[2], "messages") {
		c.args = map[string]string{"folder": parts[1]}
		f, e := c.folderOf()
		if e != nil {
			return e
		}
		sub.folder, sub.Folder = f, f.name
		return nil
	}
	if len(parts) == 1 && strings.EqualFold(parts[0], "messages") {
		return nil
	}
	return subscriptionError("Invalid resource '" + sub.Resource + "'.")
}

func (c *graphCall) subscriptionJSON(sub *Subscription) map[string]any {
	return map[string]any{"@odata.context": c.context("subscriptions/$entity"), "id": sub.ID, "resource": sub.Resource, "applicationId": sub.App,
		"changeType": strings.Join(sub.Changes, ","), "clientState": orNull(sub.ClientState), "notificationUrl": sub.URL,
		"lifecycleNotificationUrl": orNull(sub.LifecycleURL), "expirationDateTime": graphMoment(sub.Expires), "creatorId": sub.creator,
		"latestSupportedTlsVersion": "v1_2", "includeResourceData": nil, "encryptionCertificate": nil, "encryptionCertificateId": nil,
		"notificationQueryOptions": nil, "notificationUrlAppId": nil}
}

// subscription lets do have that of the path, if it is one of the app and has
// not ended, and returns it as it is then: an answer is written without the
// lock, for who does not read it would stop the store.
func (c *graphCall) subscription(do func(*Subscription) *graphError) (map[string]any, *graphError) {
	h := c.g.hooks
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := h.byID[c.args["id"]]
	if sub == nil || !strings.EqualFold(sub.App, c.tok.AppID) || sub.Tenant != c.tenant.ID || !h.sim.Now().Before(sub.Expires) {
		return nil, &graphError{status: 404, code: "ResourceNotFound", text: "The object was not found."}
	}
	if e := do(sub); e != nil {
		return nil, e
	}
	return c.subscriptionJSON(sub), nil
}

func unchanged(*Subscription) *graphError { return nil }

func (c *graphCall) subscriptions() *graphError {
	var docs []map[string]any
	for _, sub := range c.g.sim.Subscriptions() {
		if strings.EqualFold(sub.App, c.tok.AppID) && sub.Tenant == c.tenant.ID {
			doc := c.subscriptionJSON(&sub)
			delete(doc, "@odata.context")
			docs = append(docs, doc)
		}
	}
	c.json(http.StatusOK, pageOf(c.context("subscriptions"), docs))
	return nil
}

func (c *graphCall) showSubscription() *graphError {
	doc, e := c.subscription(unchanged)
	if e == nil {
		c.json(http.StatusOK, doc)
	}
	return e
}

// renewSubscription moves its end, and its address if that is asked for.
func (c *graphCall) renewSubscription() *graphError {
	var req subscriptionDoc
	if e := c.readJSON(&req); e != nil {
		return e
	}
	if req.LifecycleNotificationURL != "" {
		return subscriptionError("The lifecycleNotificationUrl cannot be changed.")
	}
	if req.NotificationURL != "" {
		if !goodHook(req.NotificationURL) {
			return subscriptionError("Notification URLs must begin with https.")
		}
		if e := c.g.hooks.validate(req.NotificationURL); e != nil {
			return e
		}
	}
	doc, e := c.subscription(func(sub *Subscription) *graphError {
		if req.ExpirationDateTime != "" {
			if e := sub.expire(c, req.ExpirationDateTime); e != nil {
				return e
			}
		}
		sub.URL = cmp.Or(req.NotificationURL, sub.URL)
		return nil
	})
	if e == nil {
		c.json(http.StatusOK, doc)
	}
	return e
}

func (c *graphCall) unsubscribe() *graphError {
	_, e := c.subscription(func(sub *Subscription) *graphError {
		c.g.hooks.remove(sub)
		return nil
	})
	if e == nil {
		c.w.WriteHeader(http.StatusNoContent)
	}
	return e
}

func (c *graphCall) reauthorize() *graphError {
	_, e := c.subscription(unchanged)
	if e == nil {
		c.w.WriteHeader(http.StatusNoContent)
	}
	return e
}
