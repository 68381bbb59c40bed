package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// leave writes some messages and takes the files as a kill would leave them.
func leave(t *testing.T, n int) (files map[string][]byte, h house) {
	t.Helper()
	dir := t.TempDir()
	h = found(t, open(t, filepath.Join(dir, "mailgrant.db")))
	must(t, h.SaveKeyset(t.Context(), []byte("wrapped"), 0))
	for range n {
		_, err := h.accept(t.Context(), bytes.Repeat([]byte("b"), 10<<10))
		must(t, err)
	}
	files = map[string][]byte{}
	for _, name := range []string{"mailgrant.db", "mailgrant.db-wal", "mailgrant.db.synced"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		files[name] = b
	}
	return files, h
}

// put makes a data directory of files, damaged by f.
func put(t *testing.T, files map[string][]byte, f func(map[string][]byte)) (name string) {
	t.Helper()
	dir := t.TempDir()
	mine := map[string][]byte{}
	for name, b := range files {
		mine[name] = bytes.Clone(b)
	}
	f(mine)
	for name, b := range mine {
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	return filepath.Join(dir, "mailgrant.db")
}

// refused wants a start that is refused with advice, and nothing changed by it.
func refused(t *testing.T, what, name string) {
	t.Helper()
	for range 2 { // a second try is no better
		s, err := store.Open(t.Context(), name, quiet)
		if err == nil {
			s.Close()
			t.Errorf("%s: it opens", what)
			return
		}
		if e := mailgrant.AsError(err); e.Code != mailgrant.Internal || !strings.Contains(e.Remedy, "--salvage") || !strings.Contains(e.Remedy, "restore") {
			t.Errorf("%s: %v; %s", what, err, e.Remedy)
		}
	}
}

// What SQLite would take for the end of its log after a crash is told from what a
// damaged disk or a careless copy has left of it.
func TestRE16DamagedLogIsRefused(t *testing.T) {
	t.Parallel()
	files, h := leave(t, 20)
	wal := len(files["mailgrant.db-wal"])
	for what, damage := range map[string]func(map[string][]byte){
		"a flipped bit in its head":       func(f map[string][]byte) { f["mailgrant.db-wal"][17] ^= 1 },
		"a flipped bit in a frame's head": func(f map[string][]byte) { f["mailgrant.db-wal"][32+8] ^= 1 },
		"a flipped bit in a page":         func(f map[string][]byte) { f["mailgrant.db-wal"][wal/2] ^= 1 },
		"a flipped bit near its end":      func(f map[string][]byte) { f["mailgrant.db-wal"][wal-100] ^= 1 },
		"cut short":                       func(f map[string][]byte) { f["mailgrant.db-wal"] = f["mailgrant.db-wal"][:wal/2] },
		"empty":                           func(f map[string][]byte) { f["mailgrant.db-wal"] = nil },
		"missing":                         func(f map[string][]byte) { delete(f, "mailgrant.db-wal") },
	} {
		refused(t, what, put(t, files, damage))
	}
	for what, harmless := range map[string]func(map[string][]byte){
		"as a kill leaves it": func(map[string][]byte) {},
		"with the beginning of a write that was never answered": func(f map[string][]byte) {
			f["mailgrant.db-wal"] = append(f["mailgrant.db-wal"], make([]byte, 3000)...)
		},
		"with a mark that a power cut took":  func(f map[string][]byte) { delete(f, "mailgrant.db.synced") },
		"with a mark that a power cut tore":  func(f map[string][]byte) { f["mailgrant.db.synced"] = f["mailgrant.db.synced"][:7] },
		"with a mark that a power cut wiped": func(f map[string][]byte) { clear(f["mailgrant.db.synced"]) },
		"with a mark that is older":          func(f map[string][]byte) { f["mailgrant.db.synced"][0] ^= 1 },
	} {
		name := put(t, files, harmless)
		s, err := store.Open(t.Context(), name, quiet)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		house{s, h.org, h.box}.whole(t, 20)
		must(t, s.Close())
		if _, err := os.Stat(name + "-wal"); err == nil {
			t.Errorf("%s: a clean end leaves the log behind", what)
		}
		must(t, open(t, name).Close()) // and is not taken for damage
	}
}

// closed is a whole file of a store that was closed.
func closed(t *testing.T, n int) (b []byte, h house) {
	t.Helper()
	files, h := leave(t, n)
	name := put(t, files, func(map[string][]byte) {})
	must(t, open(t, name).Close())
	b, err := os.ReadFile(name)
	must(t, err)
	return b, h
}

// damagePage writes over a sector of the nth page of a kind, by its first byte.
func damagePage(t *testing.T, b []byte, kind byte, pick func(page []byte) bool) {
	t.Helper()
	size := int(binary.BigEndian.Uint16(b[16:]))
	for at := size; at < len(b); at += size {
		if p := b[at : at+size]; p[0] == kind && pick(p) {
			copy(p, bytes.Repeat([]byte{0xa5}, 512))
			return
		}
	}
	t.Fatalf("there is no such page of kind %d", kind)
}

const tableLeaf = 13

func hasBody(page []byte) bool { return bytes.Contains(page, bytes.Repeat([]byte("b"), 300)) }

func TestRE16DamagedPageIsRefusedAndTheRestIsSaved(t *testing.T) {
	t.Parallel()
	const messages = 60
	b, h := closed(t, messages)
	damagePage(t, b, tableLeaf, func(p []byte) bool { return hasBody(p) })
	name := put(t, map[string][]byte{"mailgrant.db": b}, func(map[string][]byte) {})
	refused(t, "a damaged page", name)
	var saved bytes.Buffer
	out, err := store.Salvage(t.Context(), name, &saved)
	must(t, err)
	if len(out.Damaged) != 1 || out.Damaged[0] != "chunks" || out.Rows < messages {
		t.Errorf("saved: %+v", out)
	}
	after, err := os.ReadFile(name)
	must(t, err)
	if !bytes.Equal(after, b) {
		t.Error("the damaged file was changed")
	}
	to := onSQLite(t)
	must(t, to.Restore(t.Context(), &saved, mailgrant.Finding{Cause: "restored"}, mailgrant.Finding{Cause: "restored"}))
	l, _, err := to.Submissions(t.Context(), h.org, store.SubmissionFilter{Limit: 500})
	must(t, err)
	bodies := 0
	for _, sub := range l {
		if !sub.Held || !sub.Duplicate {
			t.Fatalf("%s is not held: %+v", sub.ID, sub)
		}
		if c, err := to.Chunk(t.Context(), h.org, sub.ID, 0); err == nil && len(c) == 10<<10 {
			bodies++
		}
	}
	if len(l) != messages || bodies < messages-10 || bodies == messages {
		t.Errorf("%d messages and %d bodies of %d are saved; one page was damaged", len(l), bodies, messages)
	}
}

// What others refer to is lost: the rest is put back all the same, and into the
// other database as well.
func TestRE16SavedWithoutWhatIsReferredTo(t *testing.T) {
	t.Parallel()
	b, h := closed(t, 5)
	damagePage(t, b, 13, func(p []byte) bool {
		return bytes.Contains(p, []byte("office@contoso.example")) && bytes.Contains(p, []byte("mbx_"))
	})
	name := put(t, map[string][]byte{"mailgrant.db": b}, func(map[string][]byte) {})
	refused(t, "a damaged table", name)
	var saved bytes.Buffer
	out, err := store.Salvage(t.Context(), name, &saved)
	must(t, err)
	if len(out.Damaged) != 1 || out.Damaged[0] != "mailboxes" {
		t.Errorf("saved: %+v", out)
	}
	for _, to := range []*store.Store{onSQLite(t), onPostgres(t)} {
		must(t, to.Restore(t.Context(), bytes.NewReader(saved.Bytes()), mailgrant.Finding{Cause: "restored"}, mailgrant.Finding{Cause: "restored"}))
		house{to, h.org, h.box}.whole(t, 5)
	}
}

func TestRE16NothingToSave(t *testing.T) {
	t.Parallel()
	b, _ := closed(t, 1)
	for what, damaged := range map[string][]byte{"no database": bytes.Repeat([]byte("x"), 8192), "only its head": b[:4096]} {
		name := put(t, map[string][]byte{"mailgrant.db": damaged}, func(map[string][]byte) {})
		_, err := store.Salvage(t.Context(), name, new(bytes.Buffer))
		if e := mailgrant.AsError(err); e == nil || e.Code != mailgrant.Internal || !strings.Contains(e.Remedy, "restore") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A file that does not open leaves nothing open behind.
func TestOpenThatFailsLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	name := filepath.Join(t.TempDir(), "mailgrant.db")
	must(t, os.WriteFile(name, bytes.Repeat([]byte("x"), 8192), 0o600))
	for range 3 {
		if _, err := store.Open(context.Background(), name, slog.New(slog.DiscardHandler)); err == nil {
			t.Fatal("it opens")
		}
	}
	goleak.VerifyNone(t, before)
}
