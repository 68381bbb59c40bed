package outbox_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/internal/outbox"
)

// Accepted, sent and recorded durably, by many at once: what bounds it is the
// disk's sync, shared by a group, and then the processor.
func BenchmarkAccept(b *testing.B) {
	r := newRig(b, filepath.Join(b.TempDir(), "mailgrant.db"), func(r *rig) {
		r.config = func(c *outbox.Config) { c.Life = time.Hour }
	})
	msg := message("office@contoso.example", "bench") + strings.Repeat(strings.Repeat("0123456789", 7)+"\r\n", 140)
	c, e := r.caller("smtp"), to("a@example.net")
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	b.SetParallelism(16) // 32 clients on two cores
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			d := r.out.Draft(context.Background(), c.Org)
			d.Write([]byte(msg))
			if _, err := r.out.Accept(context.Background(), c, e, d); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
