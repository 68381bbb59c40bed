package sim_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant/sim"
)

// What can be asked of the sim stands in docs/sim.md.
func TestDocumentIsComplete(t *testing.T) {
	text, err := os.ReadFile("../docs/sim.md")
	if err != nil {
		t.Fatal(err)
	}
	var wanted []string
	for word := range sim.Triggers() {
		wanted = append(wanted, "| `+"+word+"` |")
	}
	for _, name := range sim.FaultNames() {
		wanted = append(wanted, "`"+name+"`")
	}
	var calls []struct{ Call, Does string }
	if err := json.Unmarshal(start(t).control("GET", "/", "").body, &calls); err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		wanted = append(wanted, "| `"+c.Call+"` | "+c.Does+" |")
	}
	for _, w := range wanted {
		if !strings.Contains(string(text), w) {
			t.Errorf("docs/sim.md lacks %s", w)
		}
	}
}
