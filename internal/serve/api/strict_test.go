package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/mailgrant/mailgrant"
)

func TestAP06_StrictJSONAgreesWithTheStandardOnWhatIsJSON(t *testing.T) {
	for _, s := range []string{
		`{}`, `[]`, `""`, `0`, `-0`, `1.5e+3`, `true`, `false`, `null`, ` { "a" : [ 1 , { "b" : null } ] } `,
		`"\u00e4\ud83d\ude00\n\/"`, `[1,2,3]`, `{"a":1,"b":2}`,
		``, `{`, `[`, `"`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[1 2]`, `01`, `1.`, `.5`, `+1`, `1e`, `tru`, `nul`, `nan`,
		`"\x"`, `"\u12"`, `{"a":1}}`, `{} {}`, "\"a\nb\"", `'a'`, `{a:1}`, `[,1]`, `--1`, `0x1`, `"\u+123"`,
	} {
		want := json.Valid([]byte(s))
		if got := checkJSON([]byte(s)) == nil; got != want {
			t.Errorf("%q: got %v, want %v", s, got, want)
		}
		j := newJSONReader(iotest.OneByteReader(strings.NewReader(s)), make([]byte, 1))
		err := j.skip("")
		if err == nil {
			err = j.finish()
		}
		if (err == nil) != want {
			t.Errorf("%q byte by byte: got %v, want valid %v", s, err, want)
		}
	}
}

func TestAP06_StrictJSONRefusesWhatTheStandardLetsPass(t *testing.T) {
	deep := strings.Repeat("[", 65) + strings.Repeat("]", 65)
	for name, s := range map[string]string{
		"key twice":             `{"a":1,"a":2}`,
		"key twice, by escapes": `{"a":1,"\u0061":2}`,
		"key twice, deep":       `{"x":[{"a":1,"a":2}]}`,
		"depth 65":              deep,
		"not UTF-8":             "{\"a\":\"\xff\"}",
		"overlong UTF-8":        "{\"a\":\"\xc0\xaf\"}",
		"lone surrogate":        `{"a":"\ud800"}`,
		"pair turned round":     `{"a":"\udc00\ud800"}`,
	} {
		if err := checkJSON([]byte(s)); !errors.Is(err, mailgrant.Invalid) {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
	}
	if err := checkJSON([]byte(deep[1:129])); err != nil {
		t.Errorf("depth 64: got %v, want none", err)
	}
	if err := checkJSON([]byte(strings.Repeat("[", 100_000))); !errors.Is(err, mailgrant.Invalid) {
		t.Errorf("depth 100,000: got %v", err)
	}
}

func TestBase64IsDecodedAsItComes(t *testing.T) {
	blob := bytes.Repeat([]byte{0, 1, 2, 250, 251, 255, 'x'}, 30_001)
	text := base64.StdEncoding.EncodeToString(blob)
	for _, window := range []int{1, 3, 7, 4096} {
		for _, escaped := range []string{text, strings.ReplaceAll(text, "/", `\/`), text[:76] + `\r\n` + text[76:]} {
			j := newJSONReader(strings.NewReader(`"`+escaped+`" `), make([]byte, window))
			got, err := j.base64("content")
			if err != nil || !bytes.Equal(got, blob) {
				t.Fatalf("window %d: %d bytes, %v; want %d", window, len(got), err, len(blob))
			}
			if err := j.finish(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, bad := range []string{`"a"`, `"ab"`, `"abc"`, `"a==="`, `"ab==cd=="`, `"ab==", `, `"!!!!"`, `"abcd`, `"ab-_"`, `"YWJ="`, `5`} {
		j := newJSONReader(strings.NewReader(bad), make([]byte, 16))
		got, err := j.base64("content")
		if bad == `"ab==", ` { // a good text once padding bits are zero; here they are not
			if err == nil {
				t.Errorf("%s: trailing bits passed: %q", bad, got)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: got %q, want an error", bad, got)
		}
	}
}

func TestAttachmentsOfKnownLengthAreAllocatedOnce(t *testing.T) {
	blob := make([]byte, 3<<20)
	text := base64.StdEncoding.EncodeToString(blob)
	body := `["` + text + `","` + text + `"]`
	r := &io.LimitedReader{R: strings.NewReader(body), N: int64(len(body))}
	j := newJSONReader(r, make([]byte, 32<<10))
	j.left = func() int64 { return r.N }
	grew := testing.AllocsPerRun(1, func() {
		r.R, r.N = strings.NewReader(body), int64(len(body))
		j.eof, j.pos, j.end, j.slab, j.depth = false, 0, 0, nil, 0
		err := j.array("", func(int) error {
			b, err := j.base64("content")
			if len(b) != len(blob) {
				t.Errorf("got %d bytes, %v", len(b), err)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	if grew > 6 {
		t.Errorf("got %v allocations, want a handful", grew)
	}
}

func FuzzStrictJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,"b",null,true,{"c":-1.5e3}]}`), uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, window uint8) {
		whole := checkJSON(b) == nil
		if whole && !json.Valid(b) {
			t.Fatalf("%q passed and is not JSON", b)
		}
		j := newJSONReader(bytes.NewReader(b), make([]byte, int(window)+1))
		err := j.skip("")
		if err == nil {
			err = j.finish()
		}
		if (err == nil) != whole {
			t.Fatalf("%q: whole %v, in windows of %d: %v", b, whole, int(window)+1, err)
		}
	})
}
