package diagnose_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/mailgrant/mailgrant/internal/diagnose"
)

// An example is a real text with what is right to say of it.
type example struct {
	ID         string         `json:"id"`
	Text       string         `json:"text"`
	Protocol   string         `json:"protocol"`
	Context    map[string]any `json:"context"`
	Cause      string         `json:"cause"`
	AlsoAccept []string       `json:"also_accept"`
}

func readExamples(t testing.TB, name string) []example {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var all []example
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var x example
		if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
			t.Fatalf("%s:%d: %v", name, n, err)
		}
		all = append(all, x)
	}
	return all
}

func (x example) explain() string {
	return diagnose.Explain(diagnose.Failure{Text: x.Text, Protocol: x.Protocol, Context: x.Context}).Cause
}

func (x example) right(got string) bool { return got == x.Cause || slices.Contains(x.AlsoAccept, got) }

// family is the letter of a cause in the documents.
func family(t testing.TB, id string) string {
	t.Helper()
	c, ok := diagnose.Lookup(id)
	if !ok {
		t.Errorf("no cause %q", id)
	}
	return c.Family
}

// score explains every example of a file, names each miss, and wants at least
// percent right and not one limit, transport fault or success taken for a
// trouble of authentication.
func score(t *testing.T, name string, percent float64) {
	right, near := 0, 0
	all := readExamples(t, name)
	for _, x := range all {
		got := x.explain()
		is, want := family(t, got), family(t, x.Cause)
		switch {
		case x.right(got):
			right++
		case is == want:
			near++
			t.Logf("near: %s is %s, said %s: %.100q", x.ID, x.Cause, got, x.Text)
		default:
			t.Logf("miss: %s is %s, said %s: %.100q", x.ID, x.Cause, got, x.Text)
		}
		if (want == "H" || want == "J" || want == "K") && is >= "A" && is <= "G" && !x.right(got) {
			t.Errorf("false alarm: %s is %s, said %s: %q", x.ID, x.Cause, got, x.Text)
		}
	}
	share := 100 * float64(right) / float64(len(all))
	t.Logf("%s: %d of %d right (%.1f %%), %d near", name, right, len(all), share, near)
	if share < percent {
		t.Errorf("%.1f %% right, want at least %.0f %%", share, percent)
	}
}

func TestExamples(t *testing.T) { score(t, "examples.jsonl", 95) }

// More is our own: texts we know of, or their variants, in the same form.
func TestMoreExamples(t *testing.T) { score(t, "more.jsonl", 100) }
