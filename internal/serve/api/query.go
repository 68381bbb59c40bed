package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A param is one thing a query may say.
type param struct {
	name string
	kind string // string, integer, boolean, date-time
	many bool
	must bool // it cannot be left out
	text string
	of   []string // the only values there are; nil: any
}

// A query is what was asked, each name known and each value in place.
type query url.Values

func (q query) str(name string) string {
	if v := q[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// parseQuery refuses names that the route does not know: a misspelt filter must
// not be a silent "all". AP-10.
func (c *call) parseQuery() error {
	if c.r.URL.RawQuery != "" {
		if err := c.readQuery(); err != nil {
			return err
		}
	}
	for _, p := range c.route.query {
		if p.must && c.q.str(p.name) == "" {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "the query does not say %s", p.name).Fix("add it: ?%s=…", p.name).At(p.name)
		}
	}
	return nil
}

func (c *call) readQuery() error {
	v, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return mailgrant.Errorf(mailgrant.Invalid, httpStatus(http.StatusBadRequest), "the query does not read").Fix("write it as name=value&name=value, percent-encoded")
	}
	for name, values := range v {
		i := slices.IndexFunc(c.route.query, func(p param) bool { return p.name == name })
		if i < 0 {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "the query has a name that this address does not know").
				Fix("%s", known(c.route.query)).At(clip(name))
		}
		p := c.route.query[i]
		if len(values) > 1 && !p.many {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "%s stands twice in the query", name).Fix("send it once").At(name)
		}
		for _, s := range values {
			if err := p.check(s); err != nil {
				return err
			}
		}
	}
	c.q = query(v)
	return nil
}

func known(all []param) string {
	if len(all) == 0 {
		return "leave the query out"
	}
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.name
	}
	return "it knows " + strings.Join(names, ", ")
}

// check says whether a value is one of the param's kind. What passes here reads
// without error later.
func (p param) check(s string) (err error) {
	what := "a text"
	switch p.kind {
	case "integer":
		what = "a whole number"
		_, err = strconv.ParseInt(s, 10, 64)
	case "boolean":
		what = "true or false"
		if s != "true" && s != "false" {
			err = strconv.ErrSyntax
		}
	case "date-time":
		what = "a time like 2026-01-31T09:00:00Z"
		_, err = time.Parse(time.RFC3339, s)
	}
	if err == nil && p.of != nil && !slices.Contains(p.of, s) {
		what, err = "one of "+strings.Join(p.of, ", "), strconv.ErrRange
	}
	if err != nil || strings.ContainsRune(s, 0) {
		return mailgrant.Errorf(mailgrant.Invalid, err, "%s is not %s", p.name, what).Fix("correct it").At(p.name)
	}
	return nil
}

func (q query) number(name string) int64 {
	n, err := strconv.ParseInt(q.str(name), 10, 64)
	if err != nil {
		return 0 // it is not there: check saw the rest
	}
	return n
}

func (q query) time(name string) time.Time {
	t, err := time.Parse(time.RFC3339, q.str(name))
	if err != nil {
		return time.Time{}
	}
	return t
}

// pageMax is how many things a page has at most.
const pageMax = 500

// limit is how many things a page has.
func (q query) limit(usual int) (int, error) {
	n := q.number("limit")
	switch {
	case q["limit"] == nil:
		return usual, nil
	case n < 1 || n > pageMax:
		return 0, mailgrant.Errorf(mailgrant.Invalid, nil, "a page has from 1 to %d things", pageMax).Fix("choose another limit").At("limit")
	}
	return int(n), nil
}

// clip keeps foreign words short where they must be named.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}
