package sim

import (
	"net/http"
	"strings"
)

// handler serves everything that speaks HTTP, parted by the first segment of
// the path, or by the host where a client came by one of Graph's names.
func (s *Sim) handler() http.Handler {
	login, control, mail := http.NewServeMux(), http.NewServeMux(), http.NewServeMux()
	s.entra.routes(login)
	s.controlRoutes(control)
	s.webmailRoutes(mail)
	graph := s.graph.handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch {
		case first == "graph":
			http.StripPrefix("/graph", graph).ServeHTTP(w, r)
		case isGraphHost(r.Host):
			graph.ServeHTTP(w, r)
		case first == "_control":
			control.ServeHTTP(w, r)
		case first == "webmail" || first == "":
			mail.ServeHTTP(w, r)
		case r.URL.Path == "/_assets/style.css":
			style(w, r)
		default:
			login.ServeHTTP(w, r)
		}
	})
}

func isGraphHost(host string) bool {
	for _, c := range cloudHosts {
		if strings.EqualFold(hostName(host), c.graph) {
			return true
		}
	}
	return false
}
