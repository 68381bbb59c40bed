package sim

import (
	"encoding/base64"
	"math/big"
	"net/http"
	"strings"
)

// discovery is the OpenID configuration, with the members that the real one
// has and without those that it lacks.
func (en *entra) discovery(w http.ResponseWriter, r *http.Request) {
	g, e := en.where(r)
	if e != nil {
		en.refuse(w, r, e)
		return
	}
	en.sim.counts.add("discovery")
	segment, issuer, cloud := g.name, "{tenantid}", ""
	if g.tenant != nil {
		segment, issuer, cloud = g.tenant.ID, g.tenant.ID, g.tenant.Cloud
	}
	hosts := cloudHosts[cloud]
	base := en.base(r)
	at := base + "/" + segment
	doc := map[string]any{
		"token_endpoint":                        at + "/oauth2/v2.0/token",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
		"jwks_uri":                              at + "/discovery/v2.0/keys",
		"response_modes_supported":              []string{"query", "fragment", "form_post"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"response_types_supported":              []string{"code", "id_token", "code id_token", "id_token token"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"issuer":                                base + "/" + issuer + "/v2.0",
		"request_uri_parameter_supported":       false,
		"userinfo_endpoint":                     graphBase(base, r) + "/oidc/userinfo",
		"authorization_endpoint":                en.pages(r) + "/" + segment + "/oauth2/v2.0/authorize",
		"device_authorization_endpoint":         at + "/oauth2/v2.0/devicecode",
		"http_logout_supported":                 true,
		"frontchannel_logout_supported":         true,
		"end_session_endpoint":                  en.pages(r) + "/" + segment + "/oauth2/v2.0/logout",
		"claims_supported": []string{"sub", "iss", "cloud_instance_name", "cloud_instance_host_name",
			"cloud_graph_host_name", "msgraph_host", "aud", "exp", "iat", "auth_time", "acr", "nonce",
			"preferred_username", "name", "tid", "ver", "at_hash", "c_hash", "email"},
		"kerberos_endpoint":     at + "/kerberos",
		"tenant_region_scope":   hosts.region,
		"cloud_instance_name":   strings.TrimPrefix(hosts.login, "login."),
		"cloud_graph_host_name": "graph.windows.net",
		"msgraph_host":          hosts.graph,
		"rbac_url":              "https://pas.windows.net",
	}
	if g.common() {
		doc["tenant_region_scope"] = nil
	}
	if en.view().Knobs.ResponseIssuer {
		doc["authorization_response_iss_parameter_supported"] = true
	}
	entraHeaders(w, newGUID())
	w.Header().Set("Cache-Control", "max-age=86400, private")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	writeJSON(w, http.StatusOK, doc)
}

// graphBase is Graph's address for a client that came to us by base.
func graphBase(base string, r *http.Request) string {
	for _, c := range cloudHosts {
		if strings.EqualFold(hostName(r.Host), c.login) {
			return "https://" + strings.Replace(strings.ToLower(r.Host), c.login, c.graph, 1)
		}
	}
	return base + "/graph"
}

func hostName(hostport string) string {
	name, _, _ := strings.Cut(hostport, ":")
	return name
}

type jwk struct {
	KeyType  string   `json:"kty"`
	Use      string   `json:"use"`
	KeyID    string   `json:"kid"`
	X5T      string   `json:"x5t"`
	Modulus  string   `json:"n"`
	Exponent string   `json:"e"`
	Chain    []string `json:"x5c"`
	Issuer   string   `json:"issuer"`
}

// jwks lists the keys, each with the issuer it is good for.
func (en *entra) jwks(w http.ResponseWriter, r *http.Request) {
	g, e := en.where(r)
	if e != nil {
		en.refuse(w, r, e)
		return
	}
	en.sim.counts.add("jwks")
	issuer := en.base(r) + "/{tenantid}/v2.0"
	if g.tenant != nil {
		issuer = en.base(r) + "/" + g.tenant.ID + "/v2.0"
	}
	keys := []jwk{}
	for _, k := range en.sim.keys.published() {
		keys = append(keys, jwk{
			KeyType: "RSA", Use: "sig", KeyID: k.id, X5T: k.id,
			Modulus:  base64.RawURLEncoding.EncodeToString(k.key.N.Bytes()),
			Exponent: base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.key.E)).Bytes()),
			Chain:    []string{base64.StdEncoding.EncodeToString(k.cert)},
			Issuer:   issuer,
		})
	}
	entraHeaders(w, newGUID())
	w.Header().Set("Cache-Control", "max-age=86400, private")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	writeJSON(w, http.StatusOK, map[string]any{"keys": keys})
}

// instance is what Microsoft's own client libraries ask before they trust a
// host name.
func (en *entra) instance(w http.ResponseWriter, r *http.Request) {
	host := strings.TrimPrefix(en.base(r), "https://")
	writeJSON(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": en.base(r) + "/common/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata": []map[string]any{{
			"preferred_network": host, "preferred_cache": host, "aliases": []string{host},
		}},
	})
}
