package rfc5322_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

var update = flag.Bool("update", false, "write the expected files anew")

// A reading is all that is read of a message, as the golden files have it.
type reading struct {
	Arrival  mailgrant.Arrival
	Loose    string
	Text     string   `json:",omitempty"`
	HTML     string   `json:",omitempty"`
	Contents []string `json:",omitempty"` // of the attachments
}

func readAll(t testing.TB, raw []byte) reading {
	t.Helper()
	p, err := rfc5322.Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	r := reading{Arrival: p.Arrival, Loose: hex.EncodeToString(p.Loose[:])}
	if r.Text, r.HTML, _, err = rfc5322.Texts(bytes.NewReader(raw), 4000); err != nil {
		t.Fatal(err)
	}
	for _, a := range p.Parts {
		var b bytes.Buffer
		got, err := rfc5322.Part(bytes.NewReader(raw), a.N, &b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a, got); d != "" {
			t.Errorf("attachment %d is another one when it is taken alone:\n%s", a.N, d)
		}
		if int64(b.Len()) != a.Size {
			t.Errorf("attachment %d has %d bytes, and says %d", a.N, b.Len(), a.Size)
		}
		s := b.String()
		if len(s) > 300 {
			s = s[:300] + "…"
		}
		r.Contents = append(r.Contents, strings.ToValidUTF8(s, "\ufffd"))
	}
	return r
}

// golden is r as a file has it, without what no message says.
func golden(t *testing.T, r reading) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		t.Fatal(err)
	}
	return notSaid.ReplaceAll(b.Bytes(), nil)
}

var notSaid = regexp.MustCompile(`(?m)^    "(id|org|mailbox|state|protocol|remote_id|noticed_at|received_at|body)": .*\n`)

// TestRead compares what is read of the messages in testdata/read with what is
// expected; -update writes that anew. Whatever pieces a message comes in, it is
// the same. ME-03, ME-04, ME-06.
func TestRead(t *testing.T) {
	files, err := filepath.Glob("testdata/read/*.eml")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d messages in testdata/read, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".eml"), func(t *testing.T) {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got := golden(t, readAll(t, raw))
			file := strings.TrimSuffix(f, ".eml") + ".json"
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Errorf("%s (-want +got); write it anew with -update\n%s", file, d)
			}
			pieces, err := rfc5322.Read(iotest.OneByteReader(bytes.NewReader(raw)))
			if err != nil {
				t.Fatal(err)
			}
			whole, _ := rfc5322.Read(bytes.NewReader(raw))
			if d := cmp.Diff(whole, pieces); d != "" {
				t.Errorf("byte by byte it reads as another message:\n%s", d)
			}
		})
	}
}
