package wire

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// mute only secures the connection.
type mute struct{ Login }

func (m *mute) Greet() error                        { return m.Secure() }
func (m *mute) LogIn() (*mailgrant.Finding, error)  { return nil, nil }
func (m *mute) Explain(err error) mailgrant.Finding { return m.Diagnose(diagnose.Failure{Err: err}) }

// A context that ends in the middle of TLS frees the caller at once, and is said to
// be the reason.
func TestContextEndsInTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		m := &mute{Login{Server: Server{Protocol: "SMTP", Host: "mail.example", Port: 465, Implicit: true}, Patience: time.Hour,
			Way: provider.Way{Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}}}
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error)
		go func() { got <- m.Look(ctx, m) }()
		synctest.Wait()
		began := time.Now()
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) || time.Since(began) > 0 {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
		if m.Conn != nil {
			t.Error("the connection is still there")
		}
	})
}
