package diagnose

import (
	"strconv"
	"strings"
	"time"
)

// longestWait is the most that is believed of what the other side asks for.
const longestWait = 7 * 24 * time.Hour

// waitOf reads how long the other side asked us to wait.
func waitOf(f Failure, low string) time.Duration {
	if f.RetryAfter > 0 {
		return min(f.RetryAfter, longestWait)
	}
	for _, m := range waits {
		for from := 0; ; {
			i := strings.Index(low[from:], m.words)
			if i < 0 {
				break
			}
			from += i + len(m.words)
			if d := span(low[from:], m.unit); d > 0 {
				return min(d, longestWait)
			}
		}
	}
	return 0
}

// waits are the words in front of a span, with the unit of a bare number.
var waits = []struct {
	words string
	unit  time.Duration
}{
	{"backoff time", time.Millisecond}, {"backofftime", time.Millisecond}, {"backoffmilliseconds", time.Millisecond},
	{"suggested backoff", time.Millisecond}, {"backofftimeout", time.Millisecond},
	{"retry-after", time.Second}, {"retryafter", time.Second}, {"retry after", time.Second}, {"retry_after", time.Second},
	{"try again in", time.Second}, {"try again after", time.Second}, {"retry in", time.Second}, {"wait for", time.Second},
	{"wait at least", time.Second}, {"please wait", time.Second}, {"wait another", time.Second}, {"for the next", time.Second}, {"delay of", time.Second},
}

// span reads a number and its unit: ": 299910 milliseconds", " in 15 minutes".
func span(s string, unit time.Duration) time.Duration {
	s = strings.TrimLeft(s, " :=\"'(about[\n")
	n, size := number(s)
	if size == 0 {
		return 0
	}
	rest := strings.TrimLeft(s[size:], " \"'\n")
	if strings.HasPrefix(rest, "-") || strings.HasPrefix(s[size:], "-") {
		return 0 // a date follows, not a span
	}
	for _, u := range units {
		if strings.HasPrefix(rest, u.name) {
			unit = u.unit
			break
		}
	}
	if time.Duration(n) > longestWait/unit {
		return longestWait
	}
	return time.Duration(n) * unit
}

var units = []struct {
	name string
	unit time.Duration
}{
	{"milliseconds", time.Millisecond}, {"millisecond", time.Millisecond}, {"msec", time.Millisecond}, {"ms", time.Millisecond},
	{"min", time.Minute}, {"hour", time.Hour}, {"hrs", time.Hour}, {"h ", time.Hour}, {"day", 24 * time.Hour}, {"sec", time.Second}, {"s", time.Second}, {"m ", time.Minute},
}

// spanWords says a span to a person, rounded up so that nobody comes too early.
func spanWords(d time.Duration) string {
	n, unit := (d+time.Second-1)/time.Second, "second"
	switch {
	case d > 48*time.Hour:
		n, unit = (d+24*time.Hour-1)/(24*time.Hour), "day"
	case d > 2*time.Hour:
		n, unit = (d+time.Hour-1)/time.Hour, "hour"
	case d > 2*time.Minute:
		n, unit = (d+time.Minute-1)/time.Minute, "minute"
	}
	if n != 1 {
		unit += "s"
	}
	return strconv.Itoa(int(n)) + " " + unit
}
