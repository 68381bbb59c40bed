package api

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// full gives every field of a struct a value of its own.
func full(v reflect.Value, n *int) {
	*n++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, *n%60, 567_000, time.UTC)))
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		full(v.Elem(), n)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				full(v.Field(i), n)
			}
		}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		full(v.Index(0), n)
		full(v.Index(1), n)
	case v.Kind() == reflect.String:
		v.SetString("é<\"\\\n\x01\u2028" + string(rune('a'+*n%26)))
	case v.CanInt():
		v.SetInt(int64(*n))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanFloat():
		v.SetFloat(float64(*n) / 2)
	}
}

func TestWrittenByHandIsWhatTheStandardWrites(t *testing.T) {
	var whole mailgrant.Submission
	n := 0
	full(reflect.ValueOf(&whole).Elem(), &n)
	whole.State = mailgrant.SubmissionFailed
	for name, s := range map[string]mailgrant.Submission{"whole": whole, "empty": {Recipients: []string{}}} {
		var got mailgrant.Submission
		b := appendSubmission(nil, &s)
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v in %s", name, err, b)
		}
		if d := cmp.Diff(s, got); d != "" {
			t.Errorf("%s differs (-want +got):\n%s", name, d)
		}
		std, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var a, c any
		if err := json.Unmarshal(b, &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(std, &c); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c, a); d != "" {
			t.Errorf("%s differs from encoding/json (-want +got):\n%s", name, d)
		}
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tok := mailgrant.Token{Value: mailgrant.NewSecret("a\"b"), Type: "Bearer", Expires: now.Add(90 * time.Second), Resource: "mail", Scopes: []string{"x", "y"}}
	var got client.Token
	if err := json.Unmarshal(appendToken(nil, tok, now), &got); err != nil {
		t.Fatal(err)
	}
	want := client.Token{AccessToken: "a\"b", TokenType: "Bearer", ExpiresAt: tok.Expires, ExpiresIn: 90, Resource: "mail", Scopes: []string{"x", "y"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the token differs (-want +got):\n%s", d)
	}
}

func TestBadUTF8IsWrittenAsUTF8(t *testing.T) {
	for _, s := range []string{"\xff", "a\xc3", "\xe2\x80", "ok\xffok"} {
		var got string
		if err := json.Unmarshal(appendText(nil, s), &got); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// Every type that goes in must be one that value can read: it panics otherwise.
func TestAP05_EveryBodyCanBeRead(t *testing.T) {
	for _, r := range table() {
		if r.in == nil || r.id == "createSubmission" {
			continue
		}
		v := reflect.New(reflect.TypeOf(r.in))
		n := 0
		full(v.Elem(), &n)
		clean(v.Elem())
		b, err := json.Marshal(v.Interface())
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(r.in))
		if err := decodeBytes(b, got.Interface()); err != nil {
			t.Errorf("%s: %v at %s in %s", r.id, err, mailgrant.AsError(err).Field, b)
		}
		if d := cmp.Diff(v.Interface(), got.Interface()); d != "" {
			t.Errorf("%s differs (-sent +read):\n%s", r.id, d)
		}
	}
}

// clean fills maps, which full leaves out.
func clean(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() == reflect.Pointer && f.Elem().Kind() == reflect.Map {
			f = f.Elem()
		}
		if f.Kind() != reflect.Map {
			continue
		}
		f.Set(reflect.MakeMap(f.Type()))
		e := reflect.New(f.Type().Elem()).Elem()
		e.Set(reflect.ValueOf("v"))
		f.SetMapIndex(reflect.ValueOf("k"), e)
	}
}
