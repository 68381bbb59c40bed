package pop

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// A message is known by its key:
//
//	its unique id     as UIDL gives it
//	"uidl <hash>"     of a unique id that RFC 1939 does not allow: too long, or with
//	                  octets that are no printable ASCII
//	"header <hash>"   of its header and size where there is no unique id, where
//	                  several messages have the same, or where the one of a message
//	                  that we deleted comes again; a second message of that hash is
//	                  "header <hash> 2"
//
// The last two have a space in them, which a unique id cannot have. They cost a
// look into the header in every session.
//
// A unique id may come again for another message once the first has gone. So what
// vanished is told to Reading.Gone: what we deleted when the next listing is
// without it, everything else when two are, lest a listing that was cut short
// makes old mail look new.

// uidMax is the length of a unique id that is kept as it is. RFC 1939 allows 70.
const uidMax = 255

// A listing is what a session shows, in the order of the numbers.
type listing struct {
	entries []entry
	names   []byte // the unique ids, one after the other
}

// An entry is one message. Its unique id is names[from : from+len].
type entry struct {
	number uint32
	from   uint32
	len    uint16 // 0: it has none of its own
	size   int64  // 0: the server does not say
}

func (l *listing) name(e entry) string { return string(l.names[e.from : e.from+uint32(e.len)]) }

// list asks for all messages, their unique ids and sizes.
func (s *session) list() error {
	s.Step = "pop-list"
	l := &listing{}
	err := s.lines("UIDL", s.caps.uidl, func(line string) error { return s.addName(l, line) })
	if err != nil {
		return err
	}
	named := len(l.entries)
	slices.SortStableFunc(l.entries, byNumber)
	err = s.lines("LIST", true, func(line string) error { return s.addSize(l, line, named) })
	if err != nil {
		return err
	}
	l.order()
	l.dropRepeated()
	s.listed, s.at = l, 0
	return nil
}

// lines asks for a listing. One that the server need not know may be missing.
func (s *session) lines(command string, must bool, each func(line string) error) error {
	r, err := s.command(command)
	if err != nil {
		return err
	}
	if !r.ok {
		if must || s.passing(r) {
			return s.refusedBy(r)
		}
		return nil
	}
	s.Conn.SetDeadline(time.Now().Add(s.c.limits.listing))
	return readLines(s.r, each)
}

// number reads the first word of a line of a listing.
func number(line string) (n uint32, rest string, ok bool) {
	word, rest, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
	v, err := strconv.ParseUint(word, 10, 31)
	return uint32(v), rest, err == nil && v > 0
}

// addName reads "7 whqtswO00WBw418f9t5JxYwZ". A line that tells no number tells of
// no message: LIST has it.
func (s *session) addName(l *listing, line string) error {
	n, uid, ok := number(line)
	if !ok {
		return nil
	}
	if len(l.entries) >= s.c.limits.entries {
		return s.tooMany()
	}
	name := keyOf(uid)
	l.entries = append(l.entries, entry{number: n, from: uint32(len(l.names)), len: uint16(len(name))})
	l.names = append(l.names, name...)
	if len(l.names) > s.c.limits.names {
		return s.tooMany()
	}
	return nil
}

// keyOf makes a key of a unique id; "" when there is none.
func keyOf(uid string) string {
	uid = strings.TrimRight(uid, " ")
	fine := len(uid) <= uidMax
	for i := range len(uid) {
		fine = fine && uid[i] > ' ' && uid[i] < 0x7f
	}
	if fine {
		return uid
	}
	sum := sha256.Sum256([]byte(uid))
	return "uidl " + hex.EncodeToString(sum[:])
}

// addSize reads "7 1205". The first entries are those of UIDL.
func (s *session) addSize(l *listing, line string, named int) error {
	n, rest, ok := number(line)
	if !ok {
		return nil
	}
	word, _, _ := strings.Cut(rest, " ")
	size, err := strconv.ParseInt(word, 10, 64)
	if err != nil || size < 0 {
		size = 0
	}
	at, found := slices.BinarySearchFunc(l.entries[:named], n, func(e entry, n uint32) int { return cmp.Compare(e.number, n) })
	if found {
		l.entries[at].size = size
		return nil
	}
	if len(l.entries) >= s.c.limits.entries {
		return s.tooMany()
	}
	l.entries = append(l.entries, entry{number: n, size: size})
	return nil
}

func (s *session) tooMany() error {
	return mailgrant.Errorf(mailgrant.Misset, nil, "the mailbox %s has more messages than are read by POP (%d)", s.Way.Mailbox.Address, s.c.limits.entries).
		Fix("delete old messages at the provider, or read the mailbox by IMAP or by the provider's API")
}

func byNumber(a, b entry) int { return cmp.Compare(a.number, b.number) }

// order sorts by number. Of several lines with one number none is believed.
func (l *listing) order() {
	slices.SortStableFunc(l.entries, byNumber)
	kept := l.entries[:0]
	for _, e := range l.entries {
		if last := len(kept) - 1; last >= 0 && kept[last].number == e.number {
			kept[last].len, kept[last].size = 0, max(kept[last].size, e.size)
			continue
		}
		kept = append(kept, e)
	}
	l.entries = kept
}

// dropRepeated takes their unique id from all that share one.
func (l *listing) dropRepeated() {
	seed := maphash.MakeSeed()
	hash := func(e entry) uint64 { return maphash.Bytes(seed, l.names[e.from:e.from+uint32(e.len)]) }
	sums := make([]uint64, 0, len(l.entries))
	for _, e := range l.entries {
		if e.len > 0 {
			sums = append(sums, hash(e))
		}
	}
	slices.Sort(sums)
	var twice []uint64
	for i := 1; i < len(sums); i++ {
		if sums[i] == sums[i-1] && (len(twice) == 0 || twice[len(twice)-1] != sums[i]) {
			twice = append(twice, sums[i])
		}
	}
	if len(twice) == 0 {
		return
	}
	for i, e := range l.entries {
		if _, ok := slices.BinarySearch(twice, hash(e)); ok && e.len > 0 {
			l.entries[i].len = 0
		}
	}
}

// key is what the message at i is known by; it may have to look for it.
func (b *inbox) key(i int) (string, error) {
	e := b.s.listed.entries[i]
	if e.len > 0 {
		if name := b.s.listed.name(e); !b.deleted[name] {
			return name, nil
		}
	}
	if k, ok := b.looked[e.number]; ok {
		return k, nil
	}
	header, refused, err := b.s.header(e)
	if err == nil && refused != nil && b.s.passing(*refused) {
		err = b.s.refusedBy(*refused)
	}
	if err != nil {
		return "", err
	}
	k := headerKey(header, e.size)
	if b.looked == nil {
		b.looked, b.hashes = map[uint32]string{}, map[string]int{}
	}
	if b.hashes[k]++; b.hashes[k] > 1 {
		k += " " + strconv.Itoa(b.hashes[k])
	}
	b.looked[e.number] = k
	return k, nil
}

func headerKey(header []byte, size int64) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d\n", size)
	sum.Write(header)
	return "header " + hex.EncodeToString(sum.Sum(nil)[:16])
}

// remembered is how many unique ids are kept from one session to the next. Of a
// larger mailbox nobody is told what vanished.
const remembered = 10_000

// A memory is what was listed the last time. It waits as long as the mailbox does,
// so it is small.
type memory struct {
	names  string          // the unique ids, a line each
	missed map[string]bool // those that were missing then for the first time
}

// vanished tells of what is not listed any more. See above.
func (b *inbox) vanished(ctx context.Context) error {
	here, names := b.present()
	var gone []string
	missed := map[string]bool{}
	for name := range strings.Lines(b.before.names) {
		if name = name[:len(name)-1]; !here[name] && !b.deleted[name] {
			missed[name] = true
		}
	}
	for name := range b.before.missed {
		if !here[name] {
			gone = append(gone, name)
		}
	}
	for name := range b.deleted {
		if !here[name] {
			gone = append(gone, name)
		}
	}
	if len(gone) > 0 && b.r.Gone != nil {
		if err := b.r.Gone(ctx, gone); err != nil {
			return err
		}
	}
	for _, name := range gone {
		delete(b.deleted, name)
	}
	b.before = memory{names, missed}
	return nil
}

// present are the unique ids that are listed, as far as they are to be compared
// with others: as a set, and as what is remembered.
func (b *inbox) present() (here map[string]bool, names string) {
	l := b.s.listed
	few := b.r.Gone != nil && len(l.entries) <= remembered
	if !few {
		b.before = memory{}
	}
	here = map[string]bool{}
	var lines strings.Builder
	for _, e := range l.entries {
		name := l.name(e)
		if e.len == 0 || !few && !b.deleted[name] {
			continue
		}
		here[name] = true
		if few {
			lines.WriteString(name + "\n")
		}
	}
	return here, lines.String()
}

// header gives the header of a message, or what of it is looked at. refused says
// that the server does not give it.
func (s *session) header(e entry) (header []byte, refused *reply, err error) {
	s.Step = "pop-read"
	command := "RETR"
	if s.caps.top || !s.caps.known && !s.noTop {
		command = "TOP"
	}
	line := command + " " + strconv.Itoa(int(e.number))
	if command == "TOP" {
		line += " 0"
	}
	r, err := s.command(line)
	if err != nil {
		return nil, nil, err
	}
	if !r.ok && command == "TOP" && r.code == "" && !s.caps.top {
		s.noTop = true
		return s.header(e)
	}
	if !r.ok {
		return nil, &r, nil
	}
	s.allow(e.size)
	d := newDots(s.r, s.most(e))
	if header, err = io.ReadAll(io.LimitReader(d, headerMax)); err == nil {
		err = d.drain()
	}
	if err != nil {
		return nil, nil, err
	}
	return cutHeader(header), nil, nil
}

// cutHeader leaves the body off.
func cutHeader(b []byte) []byte {
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return b[:i+2]
	}
	return b
}

// allow gives a message the time that it takes on the slowest line.
func (s *session) allow(size int64) {
	s.Conn.SetDeadline(time.Now().Add(s.c.limits.command + time.Duration(min(size, 1<<32)/slowest)*time.Second))
}

// most is how much is read of a message that nobody wants: what the server said,
// and something for what it did not count.
func (s *session) most(e entry) int64 { return e.size + e.size/4 + 16*wire.ReplyMax + headerMax }
