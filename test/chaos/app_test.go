package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// An application is told by webhook. In its bad hours it refuses, hangs, takes and
// does not say so, and is gone for a while.
type application struct {
	t    *testing.T
	addr string

	mu     sync.Mutex
	server *http.Server
	serves sync.WaitGroup
	sign   *standardwebhooks.Webhook
	bad    bool
	told   map[string]telling // by webhook-id
	moods  map[string]int     // how often each struck
}

// A telling is what came under one webhook-id.
type telling struct {
	times   int
	body    string
	arrival mailgrant.ID
	subject string
}

func newApplication(t *testing.T) *application {
	t.Helper()
	a := &application{t: t, told: map[string]telling{}, moods: map[string]int{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.addr = l.Addr().String()
	a.serve(l)
	t.Cleanup(a.stop)
	return a
}

func (a *application) serve(l net.Listener) {
	s := &http.Server{Handler: a}
	a.mu.Lock()
	a.server = s
	a.mu.Unlock()
	a.serves.Go(func() { s.Serve(l) })
}

func (a *application) stop() {
	a.mu.Lock()
	s := a.server
	a.mu.Unlock()
	s.Close()
	a.serves.Wait()
}

// restart is gone for d.
func (a *application) restart(d time.Duration) {
	a.stop()
	<-time.After(d)
	l, err := net.Listen("tcp", a.addr)
	if err != nil {
		a.t.Errorf("the application does not come up again: %v", err)
		return
	}
	a.serve(l)
	a.mu.Lock()
	a.moods["gone"]++
	a.mu.Unlock()
}

// trust has it know its secret.
func (a *application) trust(secret string) error {
	s, err := standardwebhooks.NewWebhook(secret)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sign = s
	return err
}

func (a *application) behave(well bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bad = !well
}

// mood is what becomes of the next request.
func (a *application) mood() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	mood := ""
	if n := rand.IntN(100); a.bad && n < 6 {
		mood = []string{"refuses", "hangs", "loses the answer"}[n/2]
		a.moods[mood]++
	}
	return mood
}

func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // who told it was killed
	}
	switch a.mood() {
	case "refuses":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "hangs":
		select {
		case <-r.Context().Done():
		case <-time.After(2 * time.Second):
		}
		panic(http.ErrAbortHandler)
	case "loses the answer":
		a.take(r.Header, body)
		panic(http.ErrAbortHandler)
	default:
		a.take(r.Header, body)
		w.WriteHeader(http.StatusNoContent)
	}
}

// take writes down what came.
func (a *application) take(h http.Header, body []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.sign.Verify(body, h); err != nil {
		a.t.Errorf("a webhook is not signed: %v", err)
		return
	}
	var p struct{ Data mailgrant.Event }
	var s struct {
		ID      mailgrant.ID
		Subject string
	}
	err := json.Unmarshal(body, &p)
	if err == nil {
		err = json.Unmarshal(p.Data.Data, &s)
	}
	if err != nil || s.ID != p.Data.Subject {
		a.t.Errorf("a webhook tells of %q: %v", body, err)
	}
	id := h.Get("webhook-id")
	was, again := a.told[id]
	if again && was.body != string(body) {
		a.t.Errorf("under %s came %s and then %s", id, was.body, body)
	}
	a.told[id] = telling{was.times + 1, string(body), s.ID, s.Subject}
}

// heard are the webhook-ids for each arrival, how many were told more than once,
// and a line about the moods.
func (a *application) heard() (ids map[mailgrant.ID][]string, twice int, moods string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids = map[mailgrant.ID][]string{}
	for id, t := range a.told {
		ids[t.arrival] = append(ids[t.arrival], id)
		if t.times > 1 {
			twice++
		}
	}
	return ids, twice, fmt.Sprint(a.moods)
}
