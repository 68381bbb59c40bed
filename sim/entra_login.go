package sim

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"
)

// login takes what a person entered on a page and goes on with the flow.
func (en *entra) login(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.ParseForm() != nil {
		en.showError(w, r, fail("9002313"))
		return
	}
	en.mu.Lock()
	defer en.mu.Unlock()
	f := en.flows[r.PostForm.Get("ctx")]
	s := en.session(w, r)
	if f == nil || f.session != s ||
		subtle.ConstantTimeCompare([]byte(f.canary), []byte(r.PostForm.Get("canary"))) != 1 {
		en.showError(w, r, fail("50058"))
		return
	}
	en.refresh(f)
	if e := en.enter(w, r, f); e != nil {
		en.answerError(w, r, f, e)
		return
	}
	if en.flows[f.id] == f {
		en.next(w, r, f)
	}
}

// refresh lets a flow see the world as it is now.
func (en *entra) refresh(f *flow) {
	if at, ok := en.view().apps[strings.ToLower(f.app.ID)]; ok {
		f.app, f.home = at.item, at.tenant
	}
	if f.segment.tenant != nil {
		if t := en.view().tenants[strings.ToLower(f.segment.tenant.ID)]; t != nil {
			f.segment.tenant = t
		}
	}
	if f.account != nil {
		if a, _ := en.find(f.account.user.Address, f.segment); a != nil {
			f.account = a
		}
	}
}

// enter notes what was entered on one page.
func (en *entra) enter(w http.ResponseWriter, r *http.Request, f *flow) *aadError {
	form := r.PostForm.Get
	yes := form("answer") == "yes"
	switch form("step") {
	case "pick", "address":
		f.enterAccount(form("account"))
	case "back":
		f.enterAccount("")
	case "password":
		return en.enterPassword(f, form("password"))
	case "enroll":
		return en.enroll(f)
	case "number":
		return en.enterNumber(f, form("number"), yes)
	case "confirm":
		if f.confirmed = yes; !yes {
			f.device.decline()
			delete(en.flows, f.id)
			en.show(w, http.StatusOK, "done", page{Title: "You canceled the sign-in."})
		}
	case "consent":
		return en.enterConsent(f, yes, form("organization") == "yes")
	case "needadmin":
		return en.enterNeedAdmin(f, form("answer"))
	case "stay":
		if f.stay = "no"; yes {
			f.stay = "yes"
		}
	}
	return nil
}

// enterAccount begins anew with an address; none means another account.
func (f *flow) enterAccount(address string) {
	f.account, f.address, f.number, f.fresh, f.approved = nil, strings.TrimSpace(address), 0, false, false
	f.picked, f.hint, f.confirmed, f.stay = true, "", false, ""
	if f.prompt == "select_account" {
		f.prompt = ""
	}
}

func (en *entra) enterPassword(f *flow, password string) *aadError {
	u := f.account.user
	if u.PasswordExpired {
		return fail("50055").page()
	}
	if password == "" || password != u.Password {
		en.sim.counts.add("signin.wrong_password")
		f.problem = "Your account or password is incorrect. If you don't remember your password, reset it now."
		return nil
	}
	f.session.add(u, en.sim.Now())
	f.fresh = true
	return nil
}

// enroll gives the person an authenticator.
func (en *entra) enroll(f *flow) *aadError {
	if f.session.signedInAs(f.account.user) == nil {
		return nil
	}
	if err := en.sim.world.ChangeUser(f.account.user.ID, func(u *User) { u.MFA = true }); err != nil {
		return fail("50034", "user", f.account.user.Address, "tenant", f.account.home.Name)
	}
	en.refresh(f)
	return nil
}

func (en *entra) enterNumber(f *flow, number string, yes bool) *aadError {
	want := f.number
	f.number = 0
	in := f.session.signedInAs(f.account.user)
	switch {
	case !yes:
		f.problem = "We didn't hear from you, or the request was denied. Try again."
	case strings.TrimSpace(number) != fmt.Sprint(want):
		f.problem = "You entered the wrong number. A new request was sent."
	case in != nil:
		in.mfa, f.approved = true, true
	}
	return nil
}
