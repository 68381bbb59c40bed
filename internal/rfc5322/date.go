package rfc5322

import (
	"strings"
	"time"
)

// parseDate reads a date as programs write it, RFC 5322 section 3.3 and around:
// without a zone, with two letters of a year, with names of zones, with dashes,
// as ISO 8601. The words may stand in any order.
func parseDate(v string) (t time.Time, ok bool) {
	if len(v) > 200 {
		return t, false
	}
	if len(v) > 10 && v[4] == '-' && v[7] == '-' {
		for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05-07:00", "2006-01-02 15:04:05", "2006-01-02T15:04:05"} {
			if t, err := time.Parse(form, strings.TrimSpace(v)); err == nil {
				return fitDate(t)
			}
		}
		return t, false
	}
	var d dateWords
	for v != "" {
		v = strings.TrimLeft(v, " \t,")
		if strings.HasPrefix(v, "(") {
			_, v, _ = strings.Cut(v, ")")
			continue
		}
		var w string
		if w, v = cutAny(v, " \t,("); w != "" && !d.word(w) {
			return t, false
		}
	}
	if d.day < 1 || d.month == 0 || d.year < 0 || !d.clock {
		return t, false
	}
	t = time.Date(d.year, d.month, d.day, d.hour, d.minute, min(d.second, 59), 0, time.UTC)
	if t.Day() != d.day {
		return t, false
	}
	return fitDate(t.Add(-d.zone))
}

// fitDate keeps to years that every store and every program can write.
func fitDate(t time.Time) (time.Time, bool) {
	t = t.UTC().Truncate(time.Second)
	return t, t.Year() >= 1900 && t.Year() < 9999
}

type dateWords struct {
	day, year            int
	month                time.Month
	hour, minute, second int
	clock, dated         bool
	zone                 time.Duration
}

// word takes one word; false means that it cannot be of a date.
func (d *dateWords) word(w string) bool {
	switch c := w[0]; {
	case (c == '+' || c == '-') && len(w) > 1:
		return d.offset(w)
	case strings.IndexByte(w, ':') > 0 && c >= '0' && c <= '9':
		return d.time(w)
	case c >= '0' && c <= '9':
		if i := strings.IndexAny(w, "-./"); i > 0 && i < len(w)-1 { // 23-Nov-2026
			return d.word(w[:i]) && d.word(w[i+1:])
		}
		n, ok := number(strings.TrimRight(w, "."))
		switch {
		case !ok:
			return false
		case d.day == 0 && len(w) <= 3:
			d.day = n
		case !d.dated && len(w) >= 4:
			d.year, d.dated = n, true
		case !d.dated && len(w) == 2: // RFC 5322 section 4.3
			if d.year, d.dated = 1900+n, true; n < 50 {
				d.year = 2000 + n
			}
		case !d.dated && len(w) == 3:
			d.year, d.dated = 1900+n, true
		default:
			return false
		}
		return true
	}
	if i := strings.IndexAny(w, "-/"); i > 2 && i < len(w)-1 && d.month == 0 { // Nov-2026
		return d.word(w[:i]) && d.word(w[i+1:])
	}
	return d.name(w)
}

func number(s string) (n int, ok bool) {
	if s == "" || len(s) > 4 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

func (d *dateWords) time(w string) bool {
	if i := strings.IndexAny(w, "+-Z"); i > 0 {
		if w[i] != 'Z' && !d.offset(w[i:]) {
			return false
		}
		w = w[:i]
	}
	w, _, _ = strings.Cut(w, ".")
	h, rest, _ := strings.Cut(w, ":")
	m, s, seconds := strings.Cut(rest, ":")
	var ok [3]bool
	d.hour, ok[0] = number(h)
	d.minute, ok[1] = number(m)
	if ok[2] = true; seconds {
		d.second, ok[2] = number(s)
	}
	d.clock = ok[0] && ok[1] && ok[2] && d.hour < 24 && d.minute < 60 && d.second <= 60
	return d.clock
}

func (d *dateWords) offset(w string) bool {
	digits := strings.Replace(w[1:], ":", "", 1)
	n, ok := number(digits)
	if !ok {
		return len(digits) > 4 // nonsense of a kind that is met; the time is taken for UTC
	}
	if len(digits) <= 2 {
		n *= 100
	}
	d.zone = time.Duration(n/100)*time.Hour + time.Duration(n%100)*time.Minute
	if d.zone > 24*time.Hour {
		d.zone = 0
	}
	if w[0] == '-' {
		d.zone = -d.zone
	}
	return true
}

const monthNames = "janfebmaraprmayjunjulaugsepoctnovdec"

func (d *dateWords) name(w string) bool {
	low := strings.ToLower(strings.TrimRight(w, "."))
	if len(low) >= 3 && d.month == 0 {
		if i := strings.Index(monthNames, low[:3]); i >= 0 && i%3 == 0 {
			d.month = time.Month(i/3 + 1)
			return true
		}
	}
	switch low {
	case "pm":
		if d.hour < 12 {
			d.hour += 12
		}
	case "am":
		d.hour %= 12
	case "est", "cdt":
		d.zone = -5 * time.Hour
	case "edt":
		d.zone = -4 * time.Hour
	case "cst", "mdt":
		d.zone = -6 * time.Hour
	case "mst", "pdt":
		d.zone = -7 * time.Hour
	case "pst":
		d.zone = -8 * time.Hour
	case "cet", "met":
		d.zone = time.Hour
	case "cest", "mest":
		d.zone = 2 * time.Hour
	}
	for _, z := range []string{"gmt", "utc", "ut"} {
		if rest, ok := strings.CutPrefix(low, z); ok && len(rest) > 1 && (rest[0] == '+' || rest[0] == '-') {
			return d.offset(rest)
		}
	}
	return true // the day of the week, UTC, words
}
