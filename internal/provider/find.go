package provider

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/idna"

	"github.com/mailgrant/mailgrant"
)

// A Finder is what FindProvider asks. Zero fields take the real services.
type Finder struct {
	HTTP     *http.Client
	LoginURL string // of Microsoft's public cloud; empty = the template's
	LookupMX func(ctx context.Context, domain string) ([]*net.MX, error)
}

// A Guess is who keeps an address, and how we know.
type Guess struct {
	Address  string   `json:"address"`
	Domain   string   `json:"domain"`
	Template string   `json:"template"` // "" when nobody knows
	Name     string   `json:"name,omitempty"`
	Cloud    string   `json:"cloud,omitempty"`
	Tenant   string   `json:"tenant,omitempty"` // Microsoft tenant id
	MX       []string `json:"mx,omitempty"`
	Reason   string   `json:"reason"`
	Sure     bool     `json:"sure"`
}

// findWithin bounds the look-ups: a person waits for them.
const findWithin = 8 * time.Second

// FindProvider finds template, cloud and tenant of an address: by its domain, by
// the domain's mail servers, and by Microsoft's answer to who it is.
func FindProvider(ctx context.Context, address string, f Finder) (Guess, error) {
	domain, err := domainOf(address)
	if err != nil {
		return Guess{}, err
	}
	g := Guess{Address: address, Domain: domain}
	if t, ok := byDomain(domain); ok {
		g.Template, g.Name, g.Sure = t.ID, t.Name, true
		g.Reason = "addresses in " + domain + " belong to " + t.Name
		return g, nil
	}
	within, cancel := context.WithTimeout(ctx, findWithin)
	defer cancel()
	tenant := make(chan Guess, 1)
	go func() { tenant <- f.tenant(within, domain) }()
	mx, ok := f.byMX(within, domain, &g)
	t := <-tenant
	g.Tenant, g.Cloud = t.Tenant, t.Cloud
	return conclude(g, mx, ok), ctx.Err() // what one was too slow to say, the other may know
}

// conclude weighs what was found: mail servers say who keeps the mail, a tenant
// only who keeps the accounts.
func conclude(g Guess, mx Template, hasMX bool) Guess {
	switch {
	case hasMX && mx.ID == "microsoft365":
		g.Template, g.Name, g.Sure = mx.ID, mx.Name, g.Tenant != ""
		g.Reason = "the mail servers of " + g.Domain + " are those of " + mx.Name
		if c := cloudOfMX(g.MX); c != "" && g.Cloud != "dod" { // whose mail servers bear the names of gcc-high
			g.Cloud = c
		}
	case hasMX:
		g.Template, g.Name, g.Sure, g.Tenant, g.Cloud = mx.ID, mx.Name, true, "", ""
		g.Reason = "the mail servers of " + g.Domain + " are those of " + mx.Name
	case g.Tenant != "":
		t, _ := Lookup("microsoft365")
		g.Template, g.Name = t.ID, t.Name
		g.Reason = g.Domain + " is known at Microsoft, though its mail servers do not show who keeps its mail"
	default:
		g.Reason = "neither the mail servers of " + g.Domain + " nor Microsoft say who keeps its mail"
	}
	return g
}

func domainOf(address string) (string, error) {
	i := strings.LastIndexByte(address, '@')
	domain, err := idna.Lookup.ToASCII(strings.TrimSuffix(strings.TrimSpace(address[i+1:]), "."))
	domain = strings.ToLower(domain)
	if err != nil || i < 1 || !domainName.MatchString(domain) || len(domain) > 253 {
		return "", mailgrant.Errorf(mailgrant.Invalid, err, "%.100q is not an address", address).
			Fix("write it as name@example.com").At("address")
	}
	return domain, nil
}

// byDomain looks in the domains whose owner is known.
func byDomain(domain string) (Template, bool) {
	for _, t := range Templates() {
		if slices.Contains(t.Domains, domain) {
			return t, true
		}
	}
	return Template{}, false
}

func (f Finder) byMX(ctx context.Context, domain string, g *Guess) (Template, bool) {
	lookup := f.LookupMX
	if lookup == nil {
		lookup = net.DefaultResolver.LookupMX
	}
	records, err := lookup(ctx, domain)
	if err != nil {
		return Template{}, false
	}
	for _, r := range records {
		g.MX = append(g.MX, strings.ToLower(strings.TrimSuffix(r.Host, ".")))
	}
	all := Templates()
	for _, host := range g.MX {
		for _, t := range all {
			if slices.ContainsFunc(t.MX, func(end string) bool { return strings.HasSuffix(host, end) }) {
				return t, true
			}
		}
	}
	return Template{}, false
}

// cloudOfMX tells the national clouds by the names of their mail servers.
func cloudOfMX(hosts []string) string {
	for _, h := range hosts {
		switch {
		case strings.HasSuffix(h, ".office365.us"):
			return "gcc-high"
		case strings.HasSuffix(h, ".partner.outlook.cn"):
			return "china"
		}
	}
	return ""
}

// tenant asks the public cloud, which also knows who is elsewhere.
func (f Finder) tenant(ctx context.Context, domain string) (g Guess) {
	if f.HTTP == nil {
		return g
	}
	login := f.LoginURL
	if login == "" {
		t, _ := Lookup("microsoft365")
		login = t.Settings.Vars["login_url"]
	}
	m, err := tenantDocument(ctx, f.HTTP, login, domain)
	if err != nil {
		return g
	}
	if g.Tenant, err = tenantIn(login, m.Issuer); err != nil {
		return Guess{}
	}
	g.Cloud = cloudOf(m)
	return g
}

func cloudOf(m metadata) string {
	switch {
	case strings.HasSuffix(m.Instance, "partner.microsoftonline.cn"), strings.HasSuffix(m.Instance, "chinacloudapi.cn"):
		return "china"
	case strings.EqualFold(m.SubRegion, "DOD"):
		return "dod"
	case strings.EqualFold(m.SubRegion, "DODCON"), strings.HasSuffix(m.Instance, "microsoftonline.us"), strings.EqualFold(m.Region, "USG"), strings.EqualFold(m.Region, "USGov"):
		return "gcc-high"
	}
	return "public"
}
