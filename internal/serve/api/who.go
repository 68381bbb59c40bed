package api

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// identify finds out who asks. A key is taken from the header and from nowhere
// else: what stands in an address ends up in logs. AP-08.
func (c *call) identify(operator bool) error {
	if operator {
		c.by = mailgrant.Caller{Operator: true, Door: door}
		return nil
	}
	shown := c.r.Header["Authorization"]
	if len(shown) == 0 && c.route.public {
		return nil
	}
	if len(shown) != 1 {
		return noKey()
	}
	scheme, key, _ := strings.Cut(shown[0], " ")
	if key = strings.TrimSpace(key); key == "" || !strings.EqualFold(scheme, "Bearer") {
		return noKey()
	}
	by, err := c.Access.Authenticate(c.r.Context(), key, door, c.source())
	c.by = by
	return err
}

const door = "rest"

func noKey() error {
	return mailgrant.Errorf(mailgrant.Unauthorized, nil, "the request shows no key").
		Fix("send the header Authorization: Bearer KEY; issue a key with: mailgrant app key issue APP")
}

// source is the address of the client: of the connection, or as our own proxies
// tell it.
func (c *call) source() string {
	peer, err := netip.ParseAddrPort(c.r.RemoteAddr)
	if err != nil {
		return c.r.RemoteAddr
	}
	addr := peer.Addr().Unmap().WithZone("")
	if !c.trusted(addr) {
		return addr.String()
	}
	hops := strings.Split(strings.Join(c.r.Header["X-Forwarded-For"], ","), ",")
	for _, hop := range slices.Backward(hops) { // each proxy adds whom it saw at the end
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		if addr = next.Unmap().WithZone(""); !c.trusted(addr) {
			break
		}
	}
	return addr.String()
}

func (a *API) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(a.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// allowed says whether the caller may use the route at all. What of it they may
// see is for the handler.
func (c *call) allowed() error {
	switch {
	case c.by.Operator || c.by.Org == "": // nobody is known: a public route
		return nil
	case c.route.operator:
		return mailgrant.Errorf(mailgrant.Forbidden, nil, "only the operator of this installation may do this").
			Fix("do it on the server itself: mailgrant help")
	case len(c.route.scopes) == 0 || slices.ContainsFunc(c.route.scopes, c.by.May):
		return nil
	}
	return c.lacks(c.route.scopes...)
}

func (c *call) lacks(scopes ...mailgrant.Scope) error {
	var names []string
	for _, s := range scopes {
		names = append(names, string(s))
	}
	return mailgrant.Errorf(mailgrant.Forbidden, nil, "the key %s lacks the right %s", c.by.Key.Prefix, strings.Join(names, " or ")).
		Fix("issue a key that has it: mailgrant app key issue %s --scope %s", c.by.App.Name, names[0])
}

// organizationHeader is where an operator says which organization is meant.
const organizationHeader = "Mailgrant-Organization"

// organization settles which organization the call is about.
func (c *call) organization() error {
	named := mailgrant.ID(c.r.Header.Get(organizationHeader))
	switch {
	case !c.by.Operator && named != "" && c.by.Org != "" && named != c.by.Org:
		return noOrganization(named)
	case !c.by.Operator || c.route.orgless && named == "":
		return nil
	}
	if named == "" {
		return c.onlyOrganization()
	}
	if named.Is(mailgrant.PrefixOrganization) {
		o, err := c.Store.Organization(c.r.Context(), named)
		c.by.Org = o.ID
		return err
	}
	all, err := c.Store.Organizations(c.r.Context())
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.ID == named || strings.EqualFold(o.Name, string(named)) {
			c.by.Org = o.ID
			return nil
		}
	}
	return noOrganization(named)
}

// onlyOrganization is meant where none is named.
func (c *call) onlyOrganization() error {
	some, err := c.Store.OrganizationsAfter(c.r.Context(), "", 2)
	if err != nil {
		return err
	}
	switch len(some) {
	case 0:
		return mailgrant.Errorf(mailgrant.Misset, nil, "there is no organization").Fix("make one: mailgrant organization add NAME")
	case 2:
		return mailgrant.Errorf(mailgrant.Invalid, httpStatus(http.StatusBadRequest), "there are several organizations, and the request names none").
			Fix("name one: --organization ID, or the header %s", organizationHeader).At(organizationHeader)
	}
	c.by.Org = some[0].ID
	return nil
}

func noOrganization(id mailgrant.ID) error {
	return mailgrant.Errorf(mailgrant.NotFound, nil, "there is no organization %.64s", id).Fix("list those there are: mailgrant organization list")
}

// name is who the caller is, for the audit.
func (c *call) who() string {
	if c.by.Operator {
		return "operator"
	}
	return c.by.App.Name
}

// can says whether the caller has one of the rights.
func (c *call) can(scopes ...mailgrant.Scope) bool { return slices.ContainsFunc(scopes, c.by.May) }
