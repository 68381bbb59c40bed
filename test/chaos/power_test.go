package chaos

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/node"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/test/real"
)

// TestChaosPowerLoss writes down every write, sync and answer of a loaded
// mailgrant (by strace), and then takes the power away at many moments: writes
// that were not synced by then are lost, kept or torn by chance. Whatever was
// accepted before the moment must be in the database that is left, whole.
func TestChaosPowerLoss(t *testing.T) {
	w := newWorld(t)
	w.setUp()
	w.losePower(func(p *process) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		w.load(ctx, p, "p", 3<<10)
	})
}

// TestChaosReceivePowerLoss does the same while mail is read, told by webhook and
// deleted at its provider: whatever was told or deleted must be in the database.
func TestChaosReceivePowerLoss(t *testing.T) {
	w := newWorld(t)
	app := newApplication(t)
	w.readsSim(app, mailgrant.Receive{Protocol: "imap", After: mailgrant.AfterDelete}, bySMTP)
	w.undone = filepath.Join(t.TempDir(), "undone")
	w.losePower(func(*process) {
		for n := range 60 {
			if _, err := w.sim.Deliver(bySMTP, letter(reader, bySMTP, n)); err != nil {
				t.Fatal(err)
			}
			if n%4 < 3 {
				continue // several in a page
			}
			w.must(real.Await(func() error {
				if ids, _, _ := app.heard(); len(ids) <= n {
					return fmt.Errorf("%d of %d messages were told", len(ids), n+1)
				}
				return nil
			}))
		}
		w.must(real.Await(func() error {
			if l := w.sim.Mail(bySMTP); len(l) > 0 {
				return fmt.Errorf("%d messages are not deleted", len(l))
			}
			return nil
		}))
	})
}

// losePower writes down what a life does to the disk under a load, and what it
// says, and then takes the power away at many moments of it.
func (w *world) losePower(load func(*process)) {
	w.t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		w.t.Fatal("strace is not installed; run: make test-deps")
	}
	before := map[string][]byte{}
	for _, f := range w.files() {
		if b, err := os.ReadFile(f); err == nil {
			before[f] = b
		}
	}
	trace := filepath.Join(w.t.TempDir(), "trace")
	p, err := w.start("", strace, "-D", "-f", "-qq", "-o", trace, "-e", "trace=pwrite64,write,lseek,fsync,fdatasync,ftruncate", "-e", "signal=none", "-xx", "-s", "2000000", "-yy", "--")
	w.must(err)
	load(p)
	p.stop(w.t)
	h := readTrace(w.t, trace, w.files())
	if len(h.answers) < 20 || len(h.syncs) < 20 {
		w.t.Fatalf("%d answers and %d syncs were seen: too few to show anything", len(h.answers), len(h.syncs))
	}
	seed := uint64(time.Now().UnixNano())
	w.t.Logf("seed %d; %d writes, %d syncs, %d answers, %d of them before something is deleted", seed, len(h.writes), len(h.syncs), len(h.answers), h.deletes)
	if (h.deletes > 0) != (w.undone != "") {
		w.t.Errorf("%d deletions were seen", h.deletes)
	}
	r := rand.New(rand.NewPCG(seed, 2))
	cuts, checked := cycles()*5, 0
	for range cuts {
		checked += w.cut(h, before, h.answers[r.IntN(len(h.answers))].at+r.IntN(20), r)
	}
	w.t.Logf("%d power cuts: %d answers looked for, none missing", cuts, checked)
}

// A write is bytes on their way to the disk: between begun and done.
type write struct {
	file        string
	off         int64
	data        []byte // nil: the file was cut to off
	begun, done int
	synced      int // when the first sync that began behind it was done
}

type flush struct {
	file        string
	begun, done int
}

// An answer is a submission whose client may know of it from here on, an arrival
// that an application may know of, or one that is deleted at its provider.
type answer struct {
	id mailgrant.ID
	at int
}

// A history is what a process did to the disk and said to its clients, in the
// order of the trace's lines.
type history struct {
	writes  []write
	syncs   []flush
	answers []answer
	deletes int // of the answers: told to a provider
}

var (
	accepted = regexp.MustCompile(`(?s)(?:250 2\.0\.0 accepted as |HTTP/1\.1 202 .*?)(msg_[0-9a-z]{26})`)
	told     = regexp.MustCompile(`"kind":"arrival\.new","at":"[^"]*","subject":"(arr_[0-9a-z]{26})"`)
	undone   = regexp.MustCompile(`(arr_[0-9a-z]{26})\n`)
)

// A call is what one thread asks of the system.
type call struct {
	name, args, result string
	begun              int
}

// readTrace makes the history of the files from what strace wrote.
func readTrace(t *testing.T, name string, files []string) *history {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := &history{}
	open := map[string]call{}
	pos := map[string]int64{} // of files that are written with lseek and write
	lines := bufio.NewReaderSize(f, 1<<20)
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		if line == "" && err == io.EOF {
			break
		}
		thread, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		c, resumed := readCall(strings.TrimLeft(rest, " "))
		if c.begun = n; resumed {
			c.args, c.begun = open[thread].args+c.args, open[thread].begun
			delete(open, thread)
		} else if c.name == "write" {
			h.answer(c.args, n) // the client may have it before the call returns
		}
		if c.result == "" {
			open[thread] = c
			continue
		}
		h.note(t, c, n, files, pos)
	}
	h.settle()
	return h
}

// readCall parts a line of strace, without its thread. A call without a result is
// under way; resumed says that this is the rest of one.
func readCall(line string) (c call, resumed bool) {
	rest, resumed := strings.CutPrefix(line, "<... ")
	if resumed {
		c.name, rest, _ = strings.Cut(rest, " resumed>")
	} else {
		c.name, rest, _ = strings.Cut(rest, "(")
	}
	var ok bool
	if c.args, ok = strings.CutSuffix(rest, " <unfinished ...>"); ok {
		return c, resumed
	}
	if i := strings.LastIndexByte(rest, '='); i >= 0 {
		c.args = strings.TrimSuffix(strings.TrimRight(rest[:i], " "), ")")
		c.result, _, _ = strings.Cut(strings.TrimLeft(rest[i+1:], " "), " ")
	}
	return c, resumed
}

// fileOf is the descriptor that a call is given first, and what it leads to: of a
// connection the beginning.
func fileOf(args string) (fd, file string) {
	fd, rest, _ := strings.Cut(args, "<")
	file, _, _ = strings.Cut(rest, ">")
	if b, ok := unescaped(file); ok {
		file = string(b)
	}
	return fd, file
}

func (h *history) answer(args string, at int) {
	find := func(r *regexp.Regexp) (n int) {
		for _, m := range r.FindAllSubmatch(bytesOf(args), -1) {
			h.answers = append(h.answers, answer{mailgrant.ID(m[1]), at})
			n++
		}
		return n
	}
	switch _, to := fileOf(args); {
	case strings.HasPrefix(to, "TCP"):
		find(accepted)
		find(told)
	case filepath.Base(to) == undoneFile:
		h.deletes += find(undone)
	}
}

// bytesOf are those that a call writes.
func bytesOf(args string) []byte {
	_, rest, _ := strings.Cut(args, `"`)
	text, _, _ := strings.Cut(rest, `"`)
	b, _ := unescaped(text)
	return b
}

// unescaped undoes strace's hexadecimal writing of a text: \x2f\x74. It is by hand
// because a trace is hundreds of megabytes, which the race detector makes slow.
func unescaped(s string) ([]byte, bool) {
	b := make([]byte, len(s)/4)
	for i := range b {
		high, low := digit(s[4*i+2]), digit(s[4*i+3])
		if s[4*i] != '\\' || s[4*i+1] != 'x' || high|low > 15 {
			return nil, false
		}
		b[i] = high<<4 | low
	}
	return b, len(s)%4 == 0
}

func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

// note keeps what a call that is done has done to the files.
func (h *history) note(t *testing.T, c call, done int, files []string, pos map[string]int64) {
	fd, file := fileOf(c.args)
	if !slices.Contains(files, file) {
		return
	}
	got, err := strconv.ParseInt(c.result, 10, 64)
	if err != nil || got < 0 {
		return
	}
	number := func() int64 { // the last argument
		n, err := strconv.ParseInt(c.args[strings.LastIndexByte(c.args, ' ')+1:], 10, 64)
		if err != nil {
			t.Fatalf("a %s without its place: %.100s", c.name, c.args)
		}
		return n
	}
	switch c.name {
	case "lseek":
		pos[fd+file] = got
	case "write":
		h.writes = append(h.writes, write{file: file, off: pos[fd+file], data: bytesOf(c.args)[:got], begun: c.begun, done: done})
		pos[fd+file] += got
	case "pwrite64":
		h.writes = append(h.writes, write{file: file, off: number(), data: bytesOf(c.args)[:got], begun: c.begun, done: done})
	case "ftruncate":
		h.writes = append(h.writes, write{file: file, off: number(), begun: c.begun, done: done})
	case "fsync", "fdatasync":
		h.syncs = append(h.syncs, flush{file, c.begun, done})
	}
}

// settle finds out by when each write had to be on the disk.
func (h *history) settle() {
	for i := range h.writes {
		w := &h.writes[i]
		w.synced = math.MaxInt
		for _, s := range h.syncs {
			if s.file == w.file && s.begun >= w.done {
				w.synced = min(w.synced, s.done)
			}
		}
	}
}

// cut leaves the disk as a power cut at the moment might, and looks for all that
// was answered for by then.
func (w *world) cut(h *history, before map[string][]byte, at int, r *rand.Rand) int {
	w.t.Helper()
	disk := map[string][]byte{}
	for name, b := range before {
		disk[name] = bytes.Clone(b)
	}
	for _, wr := range h.writes {
		if wr.begun > at {
			continue
		}
		data := wr.data
		if wr.synced > at {
			switch r.IntN(3) {
			case 0:
				continue // lost
			case 1: // torn: some sectors of it
				if n := len(data) / 512; n > 0 {
					data = data[:512*r.IntN(n)]
				}
			}
		}
		disk[wr.file] = applied(disk[wr.file], wr, data)
	}
	dir := w.t.TempDir()
	for name, b := range disk {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return w.look(h, dir, at)
}

func applied(b []byte, wr write, data []byte) []byte {
	if wr.data == nil {
		return slices.Grow(b, max(0, int(wr.off)-len(b)))[:wr.off]
	}
	if need := int(wr.off) + len(data); need > len(b) {
		b = append(b, make([]byte, need-len(b))...)
	}
	copy(b[wr.off:], data)
	return b
}

// look opens what is left and finds everything that was answered for, whole.
func (w *world) look(h *history, dir string, at int) (checked int) {
	w.t.Helper()
	ctx := w.t.Context()
	s, err := store.Open(ctx, filepath.Join(dir, "mailgrant.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatalf("after a power cut at line %d the database does not open: %v", at, err)
	}
	defer s.Close()
	master, err := node.MasterKey(w.cfg, false)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := vault.Open(ctx, master, s)
	if err != nil {
		w.t.Fatalf("after a power cut at line %d the keys do not open: %v", at, err)
	}
	orgs, err := s.Organizations(ctx)
	if err != nil || len(orgs) != 1 {
		w.t.Fatalf("after a power cut at line %d there are organizations %v, %v", at, orgs, err)
	}
	for _, a := range h.answers {
		if a.at > at {
			continue
		}
		checked++
		size, err := sizeOf(ctx, s, orgs[0].ID, a.id)
		if err != nil {
			w.t.Errorf("%s was answered for at line %d, and after a power cut at line %d it is not there: %v", a.id, a.at, at, err)
			continue
		}
		if err := wholeBody(ctx, s, v, orgs[0].ID, a.id, size); err != nil {
			w.t.Errorf("%s was answered for at line %d, and after a power cut at line %d its body is not whole: %v", a.id, a.at, at, err)
		}
	}
	return checked
}

func sizeOf(ctx context.Context, s *store.Store, org, id mailgrant.ID) (int64, error) {
	if id.Is(mailgrant.PrefixArrival) {
		a, err := s.Arrival(ctx, org, id)
		return a.Size, err
	}
	sub, err := s.Submission(ctx, org, id)
	return sub.Size, err
}

func wholeBody(ctx context.Context, s *store.Store, v *vault.Vault, org, id mailgrant.ID, want int64) error {
	size := int64(0)
	for n := int64(0); size < want; n++ {
		sealed, err := s.Chunk(ctx, org, id, n)
		if err != nil {
			return err
		}
		b, err := v.Open(vault.Place{Org: org, Table: "chunks", Column: "bytes", Row: id, N: n}, sealed)
		if err != nil {
			return err
		}
		size += int64(len(b))
	}
	if size != want {
		return fmt.Errorf("%d bytes of %d", size, want)
	}
	return nil
}
