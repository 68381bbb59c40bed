package sim

import (
	"crypto/rand"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// next shows the first page that is still missing, and with none missing ends
// the flow. The order is: account, password, approval, policies, consent,
// "stay signed in".
func (en *entra) next(w http.ResponseWriter, r *http.Request, f *flow) {
	if f.account == nil && !en.choose(w, f) {
		return
	}
	if f.account == nil {
		en.answerError(w, r, f, fail("50058"))
		return
	}
	if f.stepsSilent(en, w, r) {
		return
	}
	en.finish(w, r, f)
}

// choose picks the account without asking if it can, or shows the page that
// asks and says false. With prompt=none it may leave the account open.
func (en *entra) choose(w http.ResponseWriter, f *flow) bool {
	known := en.known(f)
	silent := f.prompt == "none"
	hint := f.address
	if hint == "" && f.prompt != "select_account" {
		hint = f.hint
	}
	for _, a := range known {
		if hint != "" && a.user.goesBy(hint) {
			f.account = a
			return true
		}
	}
	switch {
	case silent && len(known) == 1 && hint == "":
		f.account = known[0]
	case silent:
	case hint != "":
		return en.useAddress(w, f, hint)
	case len(known) == 1 && f.prompt != "select_account" && f.prompt != "login" && !f.picked:
		f.account = known[0]
	case len(known) > 0 && f.prompt != "login" && !f.picked:
		en.show(w, http.StatusOK, "pick", page{Title: "Pick an account", Flow: f, Accounts: known})
		return false
	default:
		en.show(w, http.StatusOK, "address", page{Title: "Sign in", Flow: f})
		return false
	}
	return true
}

// useAddress takes a typed or hinted address for the account, or asks again.
func (en *entra) useAddress(w http.ResponseWriter, f *flow, address string) bool {
	a, e := en.find(address, f.segment)
	switch {
	case a == nil || a.user.Deleted:
		f.problem = "We couldn't find an account with that username. Try another account."
	case e == nil && !f.segment.admits(a.tenant):
		f.problem = "You can't sign in here with a personal account. Use your work or school account instead."
	case e == nil && !f.app.takes(a.tenant, f.home):
		f.problem = "You can't sign in here with this kind of account. Use another one."
	default:
		f.account, f.address = a, address
		return true
	}
	f.hint, f.address = "", address
	en.show(w, http.StatusOK, "address", page{Title: "Sign in", Flow: f, Address: address})
	f.problem, f.address = "", ""
	return false
}

// stepsSilent shows the first missing page and says true, or says false when
// nothing is missing. With prompt=none it answers the app instead of asking.
func (f *flow) stepsSilent(en *entra, w http.ResponseWriter, r *http.Request) bool {
	ask, data, e := en.missing(f)
	switch {
	case e != nil && f.prompt == "none":
		e.noRedir = false
		en.answerError(w, r, f, e.as(interaction(e)))
	case e != nil:
		en.answerError(w, r, f, e)
	case ask == "":
		return false
	case f.prompt == "none":
		en.answerError(w, r, f, silentError(ask, f))
	default:
		data.Flow = f
		en.show(w, http.StatusOK, ask, data)
		f.problem = ""
	}
	return true
}

func interaction(e *aadError) string {
	if e.err == "invalid_grant" {
		return "interaction_required"
	}
	return e.err
}

// silentError is what an app hears when prompt=none would need a page.
func silentError(ask string, f *flow) *aadError {
	switch ask {
	case "consent", "needadmin", "adminconsent":
		return fail("65001", "appId", f.app.ID, "name", f.app.Name).as("consent_required")
	case "number", "enroll":
		return fail("50076", "resource", graphResource.appID).as("interaction_required")
	}
	return fail("50058")
}

// missing names the page that comes next with what it shows, or the error that
// ends the flow.
func (en *entra) missing(f *flow) (string, page, *aadError) {
	if e := en.barred(f); e != nil {
		return "", page{}, e
	}
	if ask, data := en.missingProof(f); ask != "" {
		return ask, data, nil
	}
	if e := en.policies(f); e != nil {
		return "", page{}, e
	}
	if f.device != nil && !f.confirmed {
		return "confirm", page{Title: "Are you trying to sign in to " + f.app.Name + "?"}, nil
	}
	if ask, data, e := en.missingConsent(f); ask != "" || e != nil {
		return ask, data, e
	}
	if f.fresh && f.stay == "" && f.prompt != "none" && !en.view().Knobs.NoStaySignedIn {
		return "stay", page{Title: "Stay signed in?"}, nil
	}
	return "", page{}, nil
}

// barred is what no password changes.
func (en *entra) barred(f *flow) *aadError {
	a := f.account
	if _, e := en.find(a.user.Address, f.segment); e != nil {
		return fillApp(e, f.app).page()
	}
	if !f.segment.admits(a.tenant) || !f.app.takes(a.tenant, f.home) {
		e := fail("50020", "user", a.user.Address, "idp", tokenIssuer(a.home.ID), "tenant", f.home.Name)
		return fillApp(e, f.app).page()
	}
	return en.userState(a).pageOrNil()
}

func fillApp(e *aadError, app *App) *aadError {
	e.text = strings.NewReplacer("{appId}", app.ID, "{name}", app.Name).Replace(e.text)
	return e
}

func (e *aadError) pageOrNil() *aadError {
	if e == nil {
		return nil
	}
	return e.page()
}

// userState is what is wrong with the account itself.
func (en *entra) userState(a *account) *aadError {
	switch u := a.user; {
	case u.Deleted:
		return fail("50034", "user", u.Address, "tenant", a.home.Name)
	case u.Disabled:
		return fail("50057")
	case u.Locked:
		return fail("50053")
	}
	return nil
}

// missingProof asks for a password, the authenticator, or its enrolment.
func (en *entra) missingProof(f *flow) (string, page) {
	u := f.account.user
	in := f.session.signedInAs(u)
	old := in != nil && en.tooOld(f.account, f.app.ID, in.at)
	if in == nil || old || f.prompt == "login" && !f.fresh {
		return "password", page{Title: "Enter password", Address: u.Address}
	}
	if in.mfa || !en.wantsMFA(f.account, f.app.ID) {
		return "", page{}
	}
	if !u.MFA {
		return "enroll", page{Title: "More information required", Address: u.Address}
	}
	if f.number == 0 {
		n, _ := rand.Int(rand.Reader, big.NewInt(90))
		f.number = int(n.Int64()) + 10
	}
	return "number", page{Title: "Approve sign in request", Address: u.Address}
}

// wantsMFA says whether a second proof is due for this account and app.
func (en *entra) wantsMFA(a *account, app string) bool {
	return a.user.MFA || a.tenant.SecurityDefaults || en.rule(a, app, RuleRequireMFA) != nil
}

func (en *entra) tooOld(a *account, app string, at time.Time) bool {
	rule := en.rule(a, app, RuleFrequency)
	return rule != nil && en.sim.Now().Sub(at) > time.Duration(rule.Frequency)
}

func (en *entra) rule(a *account, app, kind string) *Rule {
	for i := range a.tenant.Rules {
		r := &a.tenant.Rules[i]
		if r.Kind == kind && r.binds(a.user, app) {
			return r
		}
	}
	return nil
}

// policies are Conditional Access, assignment and subscriptions.
func (en *entra) policies(f *flow) *aadError {
	if e := en.conditional(f.account, f.app.ID); e != nil {
		return e.page()
	}
	if f.device != nil && en.rule(f.account, f.app.ID, RuleBlockDeviceCode) != nil {
		return fail("53003").page()
	}
	if e := assigned(f.account, f.app); e != nil {
		return e.page()
	}
	for _, s := range f.scopes {
		if s.resource == exchangeResource && f.account.tenant.NoExchange {
			return fail("650052").page()
		}
		if s.uri != "" && findResource(s.uri, f.account.tenant.Cloud) == nil {
			return fail("500011", "uri", s.uri, "tenant", f.account.tenant.Name).page()
		}
	}
	return nil
}

func (en *entra) conditional(a *account, app string) *aadError {
	if en.rule(a, app, RuleBlock) != nil {
		return fail("53003")
	}
	if en.rule(a, app, RuleCompliantDevice) != nil {
		return fail("53000")
	}
	return nil
}

// assigned checks the enterprise application: is it on, and is the user let in.
func assigned(a *account, app *App) *aadError {
	e := a.tenant.enterprise(app.ID)
	switch {
	case e == nil:
		return nil
	case e.Disabled:
		return fail("70001", "appId", app.ID, "name", app.Name)
	case e.AssignmentRequired && !containsFold(e.Assigned, a.user.Address):
		return fail("50105", "appId", app.ID, "name", app.Name, "EmailHidden", a.user.Address)
	}
	return nil
}

// finish ends the flow as its kind asks.
func (en *entra) finish(w http.ResponseWriter, r *http.Request, f *flow) {
	in := f.session.signedInAs(f.account.user)
	f.session.clients[f.app.ID] = in.sid
	if f.stay == "yes" {
		en.setCookie(w, r, f.session, 90*24*3600)
	}
	switch {
	case f.device != nil:
		f.device.done(f, in)
		delete(en.flows, f.id)
		en.show(w, http.StatusOK, "done", page{Title: "You have signed in to " + f.app.Name + " on your device."})
	case f.admin != nil:
		en.finishAdmin(w, r, f)
	default:
		en.sim.counts.add("authorize.code")
		en.answer(w, r, f, url.Values{
			"code":          {en.newCode(f, in)},
			"session_state": {in.sid},
		})
	}
}
