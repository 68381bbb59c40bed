package api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
)

const (
	maxArgs = 2   // variable parts of a path
	maxArg  = 512 // bytes of one
)

// A node is one part of the paths. A path is matched letter by letter: another
// spelling of it, with // or .. or %2e, is not there. R-AP8.
type node struct {
	next map[string]*node
	any  *node // a variable part
	here map[string]*endpoint
}

func tree(all []endpoint) *node {
	root := &node{}
	for i := range all {
		n := root
		for part := range strings.SplitSeq(strings.TrimPrefix(all[i].path, "/"), "/") {
			n = n.add(part)
		}
		if n.here == nil {
			n.here = map[string]*endpoint{}
		}
		n.here[all[i].method] = &all[i]
	}
	return root
}

func (n *node) add(part string) *node {
	if strings.HasPrefix(part, "{") {
		if n.any == nil {
			n.any = &node{}
		}
		return n.any
	}
	if n.next == nil {
		n.next = map[string]*node{}
	}
	if n.next[part] == nil {
		n.next[part] = &node{}
	}
	return n.next[part]
}

// find sets the route and the variable parts of the path.
func (c *call) find() error {
	rest, ok := strings.CutPrefix(c.r.URL.EscapedPath(), "/")
	n, used := c.routes, 0
	for more := ok; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if m := n.next[part]; m != nil {
			n = m
			continue
		}
		arg, err := url.PathUnescape(part)
		if n = n.any; n == nil || err != nil || arg == "" || arg == "." || arg == ".." || len(arg) > maxArg {
			return nothingHere()
		}
		c.args[used] = arg
		used++
	}
	if n.here == nil {
		return nothingHere()
	}
	method := c.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if c.route = n.here[method]; c.route == nil {
		return c.otherMethod(n)
	}
	return nil
}

func nothingHere() error {
	return mailgrant.Errorf(mailgrant.NotFound, nil, "there is nothing at this address").
		Fix("the addresses are in /v1/openapi.yaml; mind their spelling and case")
}

func (c *call) otherMethod(n *node) error {
	var can []string
	for m := range n.here {
		can = append(can, m)
		if m == http.MethodGet {
			can = append(can, http.MethodHead)
		}
	}
	slices.Sort(can)
	allow := strings.Join(can, ", ")
	c.w.Header().Set("Allow", allow)
	return mailgrant.Errorf(mailgrant.Invalid, httpStatus(http.StatusMethodNotAllowed), "this address does not take this method").Fix("use %s", allow)
}
