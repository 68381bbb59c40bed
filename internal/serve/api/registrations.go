package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
)

func (c *call) listTemplates() error {
	var all []client.Template
	for _, t := range provider.Templates() {
		all = append(all, client.Template{ID: t.ID, Name: t.Name, Register: t.Register, Clouds: t.Clouds, Fields: t.Fields()})
	}
	return c.reply(client.Page[client.Template]{Items: all})
}

func (c *call) discover() error {
	g, err := provider.FindProvider(c.r.Context(), c.q.str("address"), c.Finder)
	if err != nil {
		return err
	}
	return c.reply(client.Discovery(g))
}

// shown is a registration with what a person needs beside it.
func (c *call) shown(r mailgrant.Registration) (client.Registration, error) {
	ctx := c.r.Context()
	out := client.Registration{Registration: r, RedirectURI: c.Keeper.RedirectURI(r.ID)}
	t, _ := provider.Lookup(r.Template)
	if t.Settings.AdminConsentEndpoint != "" {
		out.AdminRedirectURI = c.Keeper.AdminRedirectURI(r.ID)
	}
	var err error
	if out.Credentials, err = c.Store.Credentials(ctx, r.Org, r.ID); err != nil {
		return out, err
	}
	if !c.by.Operator { // files of the server are the operator's business
		out.CAFile = ""
		for i := range out.Credentials {
			out.Credentials[i].TokenFile = ""
		}
	}
	have, err := c.Store.AdminConsent(ctx, r.Org, r.ID)
	switch {
	case err == nil:
		out.AdminConsent = adminConsent(have)
	case !errors.Is(err, mailgrant.NotFound):
		return out, err
	}
	out.Missing = missing(r, t, len(out.Credentials))
	return out, nil
}

func adminConsent(have store.AdminConsent) *client.AdminConsent {
	return &client.AdminConsent{State: have.State, Tenant: have.Tenant, Scopes: have.Scopes, Error: have.Error, At: have.At}
}

// missing is what must still be filled in before anybody can consent.
func missing(r mailgrant.Registration, t provider.Template, credentials int) (list []string) {
	endpoints := r.Overrides["authorization_endpoint"] != "" && r.Overrides["token_endpoint"] != ""
	if t.Settings.Microsoft() && r.Tenant == "" && t.Settings.Tenant == "" && r.Overrides["tenant"] == "" {
		list = append(list, "tenant")
	}
	if t.Settings.Discovery != "none" && t.Settings.Issuer == "" && r.Issuer == "" && r.Overrides["issuer"] == "" && !endpoints {
		list = append(list, "issuer")
	}
	if r.ClientID == "" {
		list = append(list, "client_id")
	}
	if credentials == 0 && t.Settings.AuthMethod != "none" {
		list = append(list, "credential")
	}
	return list
}

func (c *call) listRegistrations() error {
	return page(c, c.registrationsAfter, func(r client.Registration) mailgrant.ID { return r.ID })
}

func (c *call) registrationsAfter(ctx context.Context, org, after mailgrant.ID, limit int) ([]client.Registration, error) {
	some, err := c.Store.RegistrationsAfter(ctx, org, after, limit)
	if err != nil {
		return nil, err
	}
	list := make([]client.Registration, len(some))
	for i, r := range some {
		if list[i], err = c.shown(r); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (c *call) registration() (mailgrant.Registration, error) {
	return c.Store.Registration(c.r.Context(), c.by.Org, mailgrant.ID(c.args[0]))
}

func (c *call) getRegistration() error {
	r, err := c.registration()
	if err != nil {
		return err
	}
	return c.showRegistration(r)
}

func (c *call) showRegistration(r mailgrant.Registration) error {
	out, err := c.shown(r)
	if err != nil {
		return err
	}
	return c.reply(out)
}

func (c *call) createRegistration() error {
	var s client.RegistrationSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	now := time.Now().UTC()
	r := mailgrant.Registration{ID: mailgrant.NewID(mailgrant.PrefixRegistration), Org: c.by.Org, CreatedAt: now}
	if s.Template == nil {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the registration names no provider").
			Fix("choose a template: GET /v1/templates lists them").At("template")
	}
	r.Template, r.Name = *s.Template, *s.Template
	if err := c.setRegistration(&r, s, 0); err != nil {
		return err
	}
	if err := c.Store.CreateRegistration(c.r.Context(), r); err != nil {
		return err
	}
	c.w.Header().Set("Location", "/v1/registrations/"+string(r.ID))
	return c.showRegistration(r)
}

func (c *call) updateRegistration() error {
	r, err := c.registration()
	if err != nil {
		return err
	}
	var s client.RegistrationSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	if s.Template != nil && *s.Template != r.Template {
		return mailgrant.Errorf(mailgrant.Conflict, nil, "the provider of a registration cannot be changed").
			Fix("make another registration, and move the mailboxes to its grants").At("template")
	}
	proofs, err := c.Store.Credentials(c.r.Context(), r.Org, r.ID)
	if err != nil {
		return err
	}
	if err := c.setRegistration(&r, s, len(proofs)); err != nil {
		return err
	}
	if err := c.Store.UpdateRegistration(c.r.Context(), r); err != nil {
		return err
	}
	return c.showRegistration(r)
}

// setRegistration puts settings into r. Where secrets and tokens are sent is not
// for a key to redirect: overrides are the operator's, and so is another issuer
// once there is a credential. R-OA3.
func (c *call) setRegistration(r *mailgrant.Registration, s client.RegistrationSettings, credentials int) error {
	if !c.by.Operator {
		for _, f := range []struct {
			name string
			set  bool
		}{{"overrides", s.Overrides != nil && len(*s.Overrides) > 0}, {"device_flow", s.DeviceFlow != nil && *s.DeviceFlow != r.DeviceFlow},
			{"ca_file", s.CAFile != nil && *s.CAFile != r.CAFile},
			{"issuer", s.Issuer != nil && *s.Issuer != r.Issuer && credentials > 0}} {
			if f.set {
				return operatorOnly(f.name)
			}
		}
	}
	set(&r.Name, s.Name)
	set(&r.Cloud, s.Cloud)
	set(&r.Tenant, s.Tenant)
	set(&r.Issuer, s.Issuer)
	set(&r.ClientID, s.ClientID)
	set(&r.Prompt, s.Prompt)
	set(&r.Overrides, s.Overrides)
	set(&r.ScopesExtra, s.ScopesExtra)
	set(&r.ScopesLeave, s.ScopesLeave)
	set(&r.DeviceFlow, s.DeviceFlow)
	set(&r.CAFile, s.CAFile)
	set(&r.Disabled, s.Disabled)
	r.UpdatedAt = time.Now().UTC()
	return checkRegistration(c.r.Context(), r)
}

func operatorOnly(field string) error {
	return mailgrant.Errorf(mailgrant.Forbidden, nil, "only the operator of this installation may set %s", field).
		Fix("set it on the server itself: mailgrant registration set").At(field)
}

// prompts are those that OpenID Connect names.
var prompts = []string{"none", "login", "consent", "select_account"}

func checkRegistration(ctx context.Context, r *mailgrant.Registration) error {
	if err := checkName(&r.Name, "a registration"); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		v    *string
		max  int
	}{{"tenant", &r.Tenant, 253}, {"issuer", &r.Issuer, 500}, {"client_id", &r.ClientID, 500}, {"ca_file", &r.CAFile, 1000}} {
		*f.v = strings.TrimSpace(*f.v)
		if len(*f.v) > f.max || strings.ContainsFunc(*f.v, func(r rune) bool { return !unicode.IsGraphic(r) }) || f.name != "ca_file" && strings.ContainsAny(*f.v, " ") {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "the %s is not one word of up to %d letters", f.name, f.max).Fix("copy it again from the provider's page").At(f.name)
		}
	}
	if u, err := url.Parse(r.Issuer); r.Issuer != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		return mailgrant.Errorf(mailgrant.Invalid, err, "the issuer is not a web address").Fix("write it as the provider does, like https://login.example.com").At("issuer")
	}
	for p := range strings.FieldsSeq(r.Prompt) {
		if !slices.Contains(prompts, p) {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "there is no such prompt").Fix("use one of %s, or leave it empty", strings.Join(prompts, ", ")).At("prompt")
		}
	}
	for i, list := range [][]string{r.ScopesExtra, r.ScopesLeave} {
		for _, s := range list {
			if s == "" || len(s) > 500 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) {
				return mailgrant.Errorf(mailgrant.Invalid, nil, "a scope is one word").Fix("send each scope by itself").At([]string{"scopes_extra", "scopes_leave"}[i])
			}
		}
	}
	// What is wrong in itself is found before anybody is asked; whether the
	// provider answers is not a matter of the settings.
	if _, err := provider.Resolve(ctx, *r, &http.Client{Transport: offline{}}); errors.Is(err, mailgrant.Invalid) {
		return err
	}
	return nil
}

type offline struct{}

var errOffline = errors.New("api: nobody is asked while settings are checked")

func (offline) RoundTrip(*http.Request) (*http.Response, error) { return nil, errOffline }

func (c *call) deleteRegistration() error {
	if err := c.nothing(); err != nil {
		return err
	}
	if err := c.Store.DeleteRegistration(c.r.Context(), c.by.Org, mailgrant.ID(c.args[0])); err != nil {
		return err
	}
	return c.done()
}

func (c *call) addCredential() error {
	r, err := c.registration()
	if err != nil {
		return err
	}
	var n client.NewCredential
	if err := c.decode(&n); err != nil {
		return err
	}
	if n.TokenFile != "" && !c.by.Operator {
		return operatorOnly("token_file")
	}
	made, err := c.Keeper.AddCredential(c.r.Context(), c.Store, r, grant.NewCredential{Kind: n.Kind, Secret: mailgrant.NewSecret(n.Secret), TokenFile: n.TokenFile,
		Description: n.Description, NotBefore: n.NotBefore, NotAfter: n.NotAfter})
	if err != nil {
		return err
	}
	return c.reply(made)
}

func (c *call) deleteCredential() error {
	if err := c.nothing(); err != nil {
		return err
	}
	r, err := c.registration()
	if err != nil {
		return err
	}
	all, err := c.Store.Credentials(c.r.Context(), r.Org, r.ID)
	if err != nil {
		return err
	}
	id := mailgrant.ID(c.args[1])
	if !slices.ContainsFunc(all, func(have mailgrant.Credential) bool { return have.ID == id }) {
		return absent("credential", id)
	}
	if err := c.Store.DeleteCredential(c.r.Context(), r.Org, id); err != nil {
		return err
	}
	return c.done()
}

// absent is what the store says of a row that is not there.
func absent(what string, id mailgrant.ID) error { return store.Absent(what, id) }
