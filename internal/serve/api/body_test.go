package api

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func TestAP06_LargeBodiesShareTheMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &API{Config: Config{Log: slog.New(slog.DiscardHandler)}, memory: semaphore.NewWeighted(1 << 20), within: bodyWithin}
		large := `["` + strings.Repeat("a", 600<<10) + `"]`
		read := func(body string, hold <-chan struct{}) error {
			c := &call{API: a, w: httptest.NewRecorder(), r: httptest.NewRequest("POST", "/", strings.NewReader(body))}
			return c.read(1<<20, func(j *jsonReader) error {
				err := j.skip("")
				<-hold
				return err
			})
		}
		hold, free := make(chan struct{}), make(chan struct{})
		close(free)
		first := make(chan error, 1)
		go func() { first <- read(large, hold) }()
		synctest.Wait()
		began := time.Now()
		if err := read(large, free); !errors.Is(err, mailgrant.Unavailable) || time.Since(began) != memoryWithin {
			t.Errorf("a second large body: %v after %v", err, time.Since(began))
		}
		if err := read(`["small"]`, free); err != nil {
			t.Errorf("a small body: %v", err)
		}
		close(hold)
		if err := <-first; err != nil {
			t.Error(err)
		}
		if err := read(large, free); err != nil {
			t.Errorf("a large body when the first was done: %v", err)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"from":"a@b.example","to":["c@d.example"],"attachments":[{"name":"a","content":"YQ=="}],"headers":{"X-A":"b"},"send_at":"2026-01-02T03:04:05Z"}`), uint8(3))
	f.Add([]byte(`{"to":[1]}`), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, window uint8) {
		read := func(size int) (m message, err error) {
			j := newJSONReader(bytes.NewReader(b), make([]byte, size))
			if err = j.message(&m, 1<<20); err == nil {
				err = j.finish()
			}
			return m, err
		}
		whole, err := read(len(b) + 1)
		parts, err2 := read(int(window) + 1)
		if (err == nil) != (err2 == nil) || err == nil && !reflect.DeepEqual(whole, parts) {
			t.Fatalf("%q: whole %v, in windows of %d %v", b, err, int(window)+1, err2)
		}
		if err != nil && mailgrant.AsError(err).Remedy == "" {
			t.Fatalf("%q: %v has no remedy", b, err)
		}
	})
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte(`{"address":"a@b.example","limits":{"per_minute":5},"senders":["*@b.example"],"life":"5h","disabled":true}`))
	f.Add([]byte(`{"text":"x","context":{"a":[1,{"b":null}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{&client.MailboxSettings{}, &client.Failure{}, &client.RegistrationSettings{}, &client.NewKey{}} {
			err := decodeBytes(b, v)
			if err == nil && checkJSON(b) != nil {
				t.Fatalf("%q passed and is not strict JSON", b)
			}
			if err != nil && mailgrant.AsError(err).Code != mailgrant.Invalid {
				t.Fatalf("%q: %v", b, err)
			}
		}
	})
}
