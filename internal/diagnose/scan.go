package diagnose

import (
	"strconv"
	"strings"
)

// scan finds the codes in the text: AADSTS numbers, replies of three digits,
// enhanced status codes, HTTP statuses. Those the caller gave come first.
func (e *evidence) scan() {
	f := e.failure
	for _, n := range f.ErrorCodes {
		e.addAAD(n)
	}
	if f.SMTPCode != 0 {
		e.smtp = append(e.smtp, f.SMTPCode)
	}
	if f.Enhanced != "" {
		e.enhanced = append(e.enhanced, f.Enhanced)
	}
	e.http = f.HTTPStatus
	if n, ok := e.facts.num("http_status", "status_code", "http_code"); ok && e.http == 0 {
		e.http = int(n)
	}
	e.scanAAD()
	e.scanReplies()
	if e.http == 0 {
		e.http = scanHTTP(e.low)
	}
	if n, size := number(e.low); e.http == 0 && size == 3 && n >= 400 && n < 600 && e.is("graph", "oauth", "oidc", "network") {
		e.http = n
	}
}

func (e *evidence) addAAD(n int) {
	for _, have := range e.aad {
		if have == n {
			return
		}
	}
	e.aad = append(e.aad, n)
}

// scanAAD reads AADSTS numbers in every dress: "AADSTS50011:", "AADSTS: 50011",
// "error_codes":[50011], "errorNo":50011, "Error code: 50011", "50011 - [2026-".
func (e *evidence) scanAAD() {
	for rest := e.low; ; {
		i := strings.Index(rest, "aadsts")
		if i < 0 {
			break
		}
		inURL := inAddress(rest[:i])
		rest = strings.TrimLeft(rest[i+6:], " :_-\n\t")
		if n, size := number(rest); !inURL && size >= 5 {
			e.addAAD(e.joined(n, rest[size:]))
		}
	}
	if len(e.aad) > 0 {
		return
	}
	for _, mark := range []string{"error_codes", "errorcodes", "errorno", "error code", "errorcode", "error_code", "sign-in error", "suberror"} {
		i := strings.Index(e.low, mark)
		if i < 0 {
			continue
		}
		rest := strings.TrimLeft(e.low[i+len(mark):], " \"':=[\n\t(#")
		for {
			n, size := number(rest)
			if size < 5 || entra[n] == "" {
				break
			}
			e.addAAD(n)
			rest = strings.TrimLeft(rest[size:], " ,\n")
		}
	}
	e.scanBare()
	if i := strings.Index(e.low, " - [20"); i > 4 {
		j := i
		for j > 0 && digit(e.low[j-1]) {
			j--
		}
		if n, size := number(e.low[j:]); size >= 5 && entra[n] != "" {
			e.addAAD(n)
		}
	}
}

// scanBare takes a number of six digits or more that stands alone and is known.
func (e *evidence) scanBare() {
	if !e.is("oauth", "oidc", "") {
		return
	}
	for i := 0; i < len(e.low); i++ {
		if !digit(e.low[i]) {
			continue
		}
		n, size := number(e.low[i:])
		alone := (i == 0 || !wordByte(e.low[i-1])) && (i+size == len(e.low) || !wordByte(e.low[i+size]))
		if alone && size >= 6 && entra[n] != "" && !inAddress(e.low[:i]) {
			e.addAAD(n)
		}
		i += size
	}
}

// inAddress says whether the text ends inside a web address.
func inAddress(s string) bool {
	i := strings.LastIndex(s, "://")
	return i >= 0 && !strings.ContainsAny(s[i:], " \n\t\"'<>),&")
}

// joined mends a number broken over two lines, when only the whole is known.
func (e *evidence) joined(n int, rest string) int {
	if entra[n] != "" || rest == "" || rest[0] != '\n' {
		return n
	}
	if _, size := number(rest[1:]); size > 0 {
		if whole, err := strconv.Atoi(strconv.Itoa(n) + rest[1:1+size]); err == nil && entra[whole] != "" {
			return whole
		}
	}
	return n
}

// number reads decimal digits at the start of s, at most nine.
func number(s string) (n, size int) {
	for size < len(s) && size < 9 && digit(s[size]) {
		n = n*10 + int(s[size]-'0')
		size++
	}
	return n, size
}

// scanReplies finds SMTP replies and enhanced codes outside of addresses. Three
// digits count only where a reply can stand: at the start of a line, behind a
// bracket, a quote or a colon, or in front of an enhanced code.
func (e *evidence) scanReplies() {
	s := e.low
	inURL := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		if strings.HasPrefix(s[i:], "://") {
			inURL = true
		}
		if c <= ' ' || c == '"' || c == '>' || c == '\'' {
			inURL = false
		}
		if inURL || c < '2' || c > '5' || i > 0 && wordByte(s[i-1]) {
			continue
		}
		if n := enhancedAt(s, i); n > 0 {
			e.addEnhanced(s[i : i+n])
			i += n - 1
			continue
		}
		n, size := number(s[i:])
		if size == 3 && e.is("smtp", "") && smtpReply(n) && replyPlace(s, i) {
			e.smtp = append(e.smtp, n)
		}
		i += max(size-1, 0)
	}
}

func (e *evidence) addEnhanced(code string) {
	for _, have := range e.enhanced {
		if have == code {
			return
		}
	}
	e.enhanced = append(e.enhanced, code)
}

// smtpReply tells a reply of SMTP from a status of HTTP.
func smtpReply(n int) bool {
	switch {
	case n >= 400 && n < 420, n == 422, n == 423, n == 424, n == 426, n == 428, n == 429:
		return false
	}
	return n < 300 || n == 334 || n == 354 || n >= 400
}

func replyPlace(s string, i int) bool {
	end := i + 3
	if end < len(s) && (letter(s[end]) || s[end] == '.' && end+1 < len(s) && digit(s[end+1]) || s[end] == '%') {
		return false
	}
	if end+1 < len(s) && enhancedAt(s, end+1) > 0 {
		return true
	}
	before := strings.TrimRight(s[:i], " ")
	if before == "" {
		return true
	}
	switch before[len(before)-1] {
	case '\n', '"', '\'', '(', '[', '<', '>', '`', '|':
		return true
	case ':':
		return !strings.HasSuffix(before, "http:") && (end >= len(s) || s[end] == ' ' || s[end] == '-' || s[end] == '\n')
	}
	return strings.HasSuffix(before, "code") || strings.HasSuffix(before, "said") ||
		strings.HasSuffix(before, "response") || strings.HasSuffix(before, "reply") ||
		strings.HasSuffix(before, "status") || strings.HasSuffix(before, "smtp error")
}

// scanHTTP finds an HTTP status that is called one.
func scanHTTP(low string) int {
	for _, mark := range []string{"statuscode", "status code", "status_code", "http/1.1", "http/2", "http/1.0", "http error", "httperror", "http status", "server returned an error", "returned http error", "client error", "server error", "http code", "code=", "\"code\"", "http response code", "status", "http"} {
		for from := 0; ; {
			i := strings.Index(low[from:], mark)
			if i < 0 {
				break
			}
			from += i + len(mark)
			rest := strings.TrimLeft(low[from:], " :=\"'([<")
			if n, size := number(rest); size == 3 && n >= 200 && n < 600 && !strings.HasPrefix(rest[3:], ".") {
				return n
			}
		}
	}
	return 0
}

// reply is the first SMTP reply that refuses, or else the last one seen.
func (e *evidence) reply() int {
	last := 0
	for _, n := range e.smtp {
		if n >= 400 && n < 600 {
			return n
		}
		last = n
	}
	return last
}

// matchCodes gives a hit for every code that has a meaning.
func (e *evidence) matchCodes() {
	known := false
	for i, n := range e.aad {
		if cause := entra[n]; cause != "" {
			e.hit(cause, entraRank(n), 100-i, 0)
			known = true
		}
	}
	if len(e.aad) > 0 && !known {
		e.hit("?entra", 4, 0, 0)
	}
	for _, code := range e.enhanced {
		if m, ok := enhancedCodes[code]; ok {
			e.hit(m.cause, m.rank, 0, 0)
		} else if m, ok := enhancedFamily(code); ok {
			e.hit(m.cause, m.rank, 0, 0)
		}
	}
	if len(e.enhanced) > 0 || e.is("smtp") || e.failure.SMTPCode != 0 {
		if m, ok := replies[e.reply()]; ok {
			e.hit(m.cause, m.rank, 0, 0)
		}
	}
}

// enhancedFamily knows codes that come in ranges.
func enhancedFamily(code string) (mark, bool) {
	for _, r := range codeRanges {
		if n, _ := number(strings.TrimPrefix(code, r.prefix)); strings.HasPrefix(code, r.prefix) && n >= r.from && n <= r.to {
			return r.mark, true
		}
	}
	return mark{}, false
}
