package microsoft

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// Notices is where the notices of Graph go to the readers that wait for them. The
// door that Graph calls hands over what it got and answers what it is told:
//
//	Graph ─POST─▶ door ─▶ Handle ─▶ the bell of the reader with that subscription
//
// A notice is only a hint: it wakes a reader, which then asks Graph itself. So a
// forged one can do no more than that, and does not even that without the secret.
type Notices struct {
	mu      sync.Mutex
	bells   map[string]*bell // by subscription
	doubted map[string]bool  // by secret: those whose subscriptions may have ended
}

// NewNotices is for one process.
func NewNotices() *Notices { return &Notices{bells: map[string]*bell{}, doubted: map[string]bool{}} }

// A Notice is one of those that came.
type Notice struct {
	Subscription string    `json:"subscriptionId"`
	Secret       string    `json:"clientState"`
	Change       string    `json:"changeType"`     // "created"
	Lifecycle    string    `json:"lifecycleEvent"` // "reauthorizationRequired", "subscriptionRemoved", "missed"; "" a change
	Expires      time.Time `json:"subscriptionExpirationDateTime"`
	Tenant       string    `json:"tenantId"`
	Resource     string    `json:"resource"`
}

// From says whether a notice carries the secret, in a time that does not tell how
// much of it.
func (n Notice) From(secret string) bool {
	return secret != "" && subtle.ConstantTimeCompare([]byte(n.Secret), []byte(secret)) == 1
}

// Ends says whether the subscription ends, or has ended, unless somebody sees to it.
func (n Notice) Ends() bool {
	return n.Lifecycle == "reauthorizationRequired" || n.Lifecycle == "subscriptionRemoved"
}

// A Reply is what the door answers.
type Reply struct {
	Status int
	Type   string // of the body
	Body   string
}

const (
	tokenMax   = 4 << 10 // of a validation token
	noticesMax = 1000    // in one body
)

// Handle takes a request to the address of notices: the validationToken of its
// query, and its body, bounded by the door. elsewhere are the notices of
// subscriptions that no reader of this process has: another one's, or nobody's.
func (n *Notices) Handle(validationToken string, body []byte) (reply Reply, elsewhere []Notice) {
	if validationToken != "" {
		return validation(validationToken), nil
	}
	list, err := ParseNotices(body)
	if err != nil {
		return Reply{Status: http.StatusBadRequest}, nil
	}
	return Reply{Status: http.StatusAccepted}, n.Ring(list)
}

// validation proves that the address is ours: the token, as text, and nothing
// else. What is not a token is not said back.
func validation(token string) Reply {
	if len(token) > tokenMax {
		return Reply{Status: http.StatusBadRequest}
	}
	for _, r := range token {
		if r < ' ' || r > '~' {
			return Reply{Status: http.StatusBadRequest}
		}
	}
	return Reply{Status: http.StatusOK, Type: "text/plain; charset=utf-8", Body: token}
}

// ParseNotices reads the body of a request.
func ParseNotices(body []byte) ([]Notice, error) {
	var b struct {
		Value []Notice `json:"value"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, err
	}
	return b.Value[:min(len(b.Value), noticesMax)], nil
}

// Ring wakes the readers whose notices these are, and gives back those that no
// reader here has. One without the right secret wakes nobody.
func (n *Notices) Ring(list []Notice) (elsewhere []Notice) {
	for _, notice := range list {
		n.mu.Lock()
		b := n.bells[notice.Subscription]
		n.mu.Unlock()
		switch {
		case b == nil:
			elsewhere = append(elsewhere, notice)
		case notice.From(b.secret):
			b.ring(notice)
		}
	}
	return elsewhere
}

// Doubt has the reader with a secret see to its subscriptions at its next look: one
// ends, and it is not known whether its reader heard so. There may be none now.
func (n *Notices) Doubt(secret string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doubted[secret] = true
	for _, b := range n.bells {
		if b.secret == secret {
			b.wake()
		}
	}
}

// A bell is what a reader hears. A nil one is silent.
type bell struct {
	n      *Notices
	secret string
	tell   chan struct{}

	mu     sync.Mutex
	events map[string]string // by subscription: the last life-cycle event that must be answered
}

func (n *Notices) open(secret string) *bell {
	return &bell{n: n, secret: secret, tell: make(chan struct{}, 1), events: map[string]string{}}
}

func (b *bell) ring(n Notice) {
	if n.Ends() {
		b.mu.Lock()
		b.events[n.Subscription] = n.Lifecycle
		b.mu.Unlock()
	}
	b.wake()
}

func (b *bell) wake() {
	select {
	case b.tell <- struct{}{}:
	default: // it has been rung and not heard yet
	}
}

func (b *bell) rung() <-chan struct{} {
	if b == nil {
		return nil
	}
	return b.tell
}

// hears makes the bell that of a subscription, and says what became of it since
// the last time.
func (b *bell) hears(subscription string) (event string) {
	b.n.mu.Lock()
	b.n.bells[subscription] = b
	b.n.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	event = b.events[subscription]
	delete(b.events, subscription)
	return event
}

// doubts says whether a subscription may have ended unheard. Whoever asks sees to it,
// or says that it is to be doubted still.
func (b *bell) doubts() bool {
	b.n.mu.Lock()
	defer b.n.mu.Unlock()
	doubted := b.n.doubted[b.secret]
	delete(b.n.doubted, b.secret)
	return doubted
}

func (b *bell) doubtStill() {
	b.n.mu.Lock()
	defer b.n.mu.Unlock()
	b.n.doubted[b.secret] = true
}

func (b *bell) forget(subscription string) {
	b.n.mu.Lock()
	defer b.n.mu.Unlock()
	if b.n.bells[subscription] == b {
		delete(b.n.bells, subscription)
	}
}

func (b *bell) close() {
	if b == nil {
		return
	}
	b.n.mu.Lock()
	defer b.n.mu.Unlock()
	for id, other := range b.n.bells {
		if other == b {
			delete(b.n.bells, id)
		}
	}
}
