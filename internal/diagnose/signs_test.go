package diagnose

import (
	"strings"
	"testing"
)

func TestEverySignAndCodeNamesAKnownCause(t *testing.T) {
	known := func(where, cause string) {
		t.Helper()
		if strings.HasPrefix(cause, "?") {
			if questions[cause] == nil {
				t.Errorf("%s: no question %s", where, cause)
			}
		} else if _, ok := Lookup(cause); !ok {
			t.Errorf("%s: no cause %s", where, cause)
		}
	}
	protocols := " oauth smtp imap pop graph oidc network "
	for _, s := range loadSigns().signs {
		known("sign "+strings.Join(s.parts, " * "), s.cause)
		if s.rank < 0 || s.rank >= len(confidenceOf) {
			t.Errorf("sign %v: rank %d", s.parts, s.rank)
		}
		for _, p := range s.only {
			if !strings.Contains(protocols, " "+p+" ") {
				t.Errorf("sign %v: no protocol %q", s.parts, p)
			}
		}
		if _, ok := services[s.host]; s.host != "" && !ok {
			t.Errorf("sign %v: no service %q", s.parts, s.host)
		}
		for _, p := range s.parts {
			if p == "" {
				t.Errorf("sign %v of %s has an empty part", s.parts, s.cause)
			}
		}
	}
	for n, cause := range entra {
		known("AADSTS"+itoa(n), cause)
	}
	for code, m := range enhancedCodes {
		known(code, m.cause)
	}
	for _, r := range codeRanges {
		known(r.prefix, r.mark.cause)
	}
	for code, m := range replies {
		known(itoa(code), m.cause)
	}
	for cause := range authentication {
		known("authentication", cause)
	}
	for cause := range couldBeDelay {
		known("couldBeDelay", cause)
	}
}

func TestNoSignStandsTwice(t *testing.T) {
	seen := map[string]sign{}
	for _, s := range loadSigns().signs {
		k := strings.Join(s.parts, "*") + "|" + strings.Join(s.only, " ") + "@" + s.host
		if was, ok := seen[k]; ok && was.cause != s.cause {
			t.Errorf("%q belongs to %s and to %s", k, was.cause, s.cause)
		}
		seen[k] = s
	}
}
