package sim

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A device is a device code and what became of it.
type device struct {
	code    string
	user    string // what a person types
	segment segment
	app     string
	scopes  []scope
	made    time.Time
	polled  time.Time
	state   string // "", approved, declined, redeemed
	grant   grant
}

func (d *device) decline() { d.state = "declined" }

// done notes who signed in. It needs en.mu.
func (d *device) done(f *flow, in *signedIn) {
	var asked []string
	for _, s := range f.scopes {
		asked = append(asked, s.raw)
	}
	d.state, d.grant = "approved", f.grant(in, in.at, asked)
}

// deviceCode begins a device flow.
func (en *entra) deviceCode(w http.ResponseWriter, r *http.Request) {
	en.sim.counts.add("devicecode")
	d, e := en.newDevice(r)
	if e != nil {
		en.refuse(w, r, e)
		return
	}
	k := en.view().Knobs
	uri := en.pages(r) + "/devicelogin"
	entraHeaders(w, newGUID())
	writeJSON(w, http.StatusOK, map[string]any{
		"user_code": d.user, "device_code": d.code, "verification_uri": uri,
		"expires_in": int(time.Duration(k.DeviceLife).Seconds()),
		"interval":   int(time.Duration(k.DeviceInterval).Seconds()),
		"message": "To sign in, use a web browser to open the page " + uri +
			" and enter the code " + d.user + " to authenticate.",
	})
}

func (en *entra) newDevice(r *http.Request) (*device, *aadError) {
	if e := readForm(r); e != nil {
		return nil, e
	}
	g, e := en.where(r)
	if e != nil {
		return nil, e
	}
	id := r.PostForm.Get("client_id")
	if id == "" {
		return nil, fail("900144", "param", "client_id")
	}
	app, _, e := en.app(id, g)
	if e != nil {
		return nil, e
	}
	scopes, e := en.readScopes(r.PostForm.Get("scope"), g, app)
	if e != nil {
		return nil, e
	}
	d := &device{code: "1." + newSecretText() + newSecretText(), user: rand.Text()[:9], segment: g,
		app: app.ID, scopes: scopes, made: en.sim.Now()}
	en.mu.Lock()
	defer en.mu.Unlock()
	en.devices[d.code] = d
	sweep(en.devices, d.made, func(d *device) time.Time { return d.made })
	return d, nil
}

// pollDevice answers a device that asks whether its person is done.
func (en *entra) pollDevice(req *tokenRequest) (*tokenAnswer, *aadError) {
	text := req.PostForm.Get("device_code")
	if text == "" {
		return nil, fail("900144", "param", "device_code")
	}
	g, e := en.pollState(req, text)
	if e != nil {
		return nil, e
	}
	if e := en.alive(g); e != nil {
		return nil, e
	}
	to, e := en.resourceOf(req, strings.Join(g.Scopes, " "), false)
	if e != nil {
		return nil, e
	}
	g.ACR = req.acr
	return en.issue(req, g, to, g.Scopes, &code{})
}

func (en *entra) pollState(req *tokenRequest, text string) (*grant, *aadError) {
	en.mu.Lock()
	defer en.mu.Unlock()
	d, now, k := en.devices[text], en.sim.Now(), en.view().Knobs
	if d == nil || !strings.EqualFold(d.app, req.app.ID) {
		return nil, fail("70018")
	}
	early := now.Sub(d.polled) < time.Duration(k.DeviceInterval)
	d.polled = now
	switch {
	case d.state == "redeemed":
		return nil, fail("54005")
	case now.Sub(d.made) > time.Duration(k.DeviceLife):
		return nil, fail("70019")
	case d.state == "declined":
		return nil, fail("65004").as("authorization_declined")
	case d.state == "" && early && k.SlowDown:
		return nil, fail("70016").as("slow_down")
	case d.state == "":
		return nil, fail("70016")
	}
	d.state = "redeemed"
	g := d.grant
	return &g, nil
}

// deviceLogin is the page where a person types the code. The code may come
// with the address, as user_code or otc.
func (en *entra) deviceLogin(w http.ResponseWriter, r *http.Request) {
	if r.ParseForm() != nil {
		en.showError(w, r, fail("9002313"))
		return
	}
	typed := strings.ToUpper(strings.TrimSpace(r.Form.Get("otc") + r.Form.Get("user_code")))
	en.mu.Lock()
	defer en.mu.Unlock()
	if r.Method != http.MethodPost {
		en.show(w, http.StatusOK, "device", page{Title: "Enter code to allow access", Address: typed})
		return
	}
	d := en.deviceOf(typed)
	if d == nil {
		en.show(w, http.StatusOK, "device", page{Title: "Enter code to allow access",
			Problem: "That code didn't work. Check the code and try again."})
		return
	}
	app, home, e := en.app(d.app, d.segment)
	if e != nil {
		en.showError(w, r, e)
		return
	}
	f := &flow{segment: d.segment, app: app, home: home, scopes: d.scopes, device: d, platform: PlatformNative,
		session: en.session(w, r)}
	en.begin(f)
	en.next(w, r, f)
}

// deviceOf finds a device that still waits, by what was typed.
func (en *entra) deviceOf(typed string) *device {
	for _, d := range en.devices {
		fresh := en.sim.Now().Sub(d.made) <= time.Duration(en.view().Knobs.DeviceLife)
		if d.user == typed && d.state == "" && fresh && !en.deviceInUse(d) {
			return d
		}
	}
	return nil
}

func (en *entra) deviceInUse(d *device) bool {
	for _, f := range en.flows {
		if f.device == d && f.confirmed {
			return true
		}
	}
	return false
}

// logout ends what the browser is signed in to and tells the apps.
func (en *entra) logout(w http.ResponseWriter, r *http.Request) {
	g, e := en.where(r)
	if e != nil {
		en.showError(w, r, e)
		return
	}
	if r.ParseForm() != nil {
		en.showError(w, r, fail("9002313"))
		return
	}
	en.sim.counts.add("logout")
	en.mu.Lock()
	defer en.mu.Unlock()
	s := en.session(w, r)
	hint, hinted := userOfHint(r.Form.Get("logout_hint"))
	if who := r.Form.Get("account"); who != "" {
		if at, ok := en.view().users[strings.ToLower(who)]; ok {
			hint, hinted = at.item.ID, true
		}
	}
	if len(s.signed) > 1 && !hinted {
		f := &flow{segment: g, session: s}
		en.show(w, http.StatusOK, "logoutpick", page{Title: "Which account do you want to sign out of?",
			Accounts: en.known(f), Values: r.Form})
		return
	}
	for _, in := range slices.Clone(s.signed) {
		if !hinted || in.user == hint {
			s.remove(in.user)
		}
	}
	frames := en.frontChannel(r, s)
	if len(s.signed) == 0 {
		delete(en.sessions, s.id)
		en.setCookie(w, r, s, -1)
	}
	to := r.Form.Get("post_logout_redirect_uri")
	if !en.registered(to) {
		to = ""
	}
	if state := r.Form.Get("state"); to != "" && state != "" {
		to = withQuery(to, map[string][]string{"state": {state}})
	}
	if to != "" && len(frames) == 0 {
		http.Redirect(w, r, to, http.StatusSeeOther)
		return
	}
	en.show(w, http.StatusOK, "signedout", page{Title: "You signed out of your account", Action: to, Frames: frames})
}

// frontChannel lists the logout pages of the apps that the browser used, with
// the session's id and, against the standard, without the issuer.
func (en *entra) frontChannel(r *http.Request, s *session) []string {
	var frames []string
	for id, sid := range s.clients {
		at, ok := en.view().apps[strings.ToLower(id)]
		if !ok || at.item.LogoutURL == "" {
			continue
		}
		values := map[string][]string{"sid": {sid}}
		if en.view().Knobs.LogoutIssuer {
			values["iss"] = []string{en.base(r) + "/" + at.tenant.ID + "/v2.0"}
		}
		frames = append(frames, withQuery(at.item.LogoutURL, values))
		delete(s.clients, id)
	}
	slices.Sort(frames)
	return frames
}

// registered says whether any app may be returned to at uri.
func (en *entra) registered(uri string) bool {
	if uri == "" {
		return false
	}
	for _, at := range en.view().apps {
		if _, ok := at.item.redirect(uri); ok {
			return true
		}
	}
	return false
}
