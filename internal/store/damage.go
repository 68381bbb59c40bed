package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/mailgrant/mailgrant"
)

// A SQLite file is looked at before it is used: whether its pages hang together,
// and whether its log still has what was synced. SQLite itself takes a log with a
// flipped byte for one that a crash has cut short, and leaves out what is behind
// it without a word. RE-16.

// lookWithin bounds the look at the pages at a start. The tables that matter most
// come first. The bodies come last: they are sealed, so damage to one is found
// when it is read.
const lookWithin = 3 * time.Second

// lookAtPages has SQLite walk the trees of the file.
func lookAtPages(ctx context.Context, e *sqliteEngine) error {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	begin := time.Now()
	for _, t := range lookOrder() {
		var found string
		err := e.read.QueryRowContext(ctx, "PRAGMA quick_check('"+t+"')").Scan(&found)
		switch {
		case ctx.Err() != nil || sqliteCode(err)&0xff == sqlite3.SQLITE_INTERRUPT:
			e.log.Info("the database is large: not all of it was looked at for damage", "left_at", t, "after", time.Since(begin).Round(time.Millisecond))
			return nil
		case err != nil && sqliteCode(err)&0xff != sqlite3.SQLITE_ERROR: // as when there is no such table yet
			return err
		case err == nil && found != "ok":
			e.log.Error("the database file is damaged", "table", t, "found", found)
			return damagedFile(fmt.Errorf("in the table %s", t))
		}
	}
	return nil
}

// lookOrder are the tables, small ones first and the bodies last.
func lookOrder() []string {
	var names []string
	for _, t := range backupTables {
		if t.table != "chunks" {
			names = append(names, t.table)
		}
	}
	return append(names, "flows", "consent_links", "chunks")
}

func damagedFile(err error) error {
	return mailgrant.Errorf(mailgrant.Internal, err, "the database file is damaged").
		Fix("stop mailgrant and restore the newest backup: mailgrant restore FILE; what can still be read of this one is saved by: mailgrant backup --salvage FILE")
}

// A logMark says how much of the log is on the disk: so many frames of the
// generation that these salts name. It is written after a sync and not synced
// itself, so what a power cut leaves of it is older than the truth, never newer.
type logMark struct {
	salts  [8]byte
	frames uint32
}

const (
	markSize    = 16
	walHeader   = 32
	frameHeader = 24
)

func (m logMark) bytes() []byte {
	b := append(m.salts[:], binary.BigEndian.AppendUint32(nil, m.frames)...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// readMark is false where nothing is known.
func readMark(name string) (m logMark, known bool, err error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return m, false, nil
	}
	if err != nil || len(b) != markSize {
		return m, false, err
	}
	copy(m.salts[:], b)
	m.frames = binary.BigEndian.Uint32(b[8:])
	return m, m.frames > 0 && bytes.Equal(m.bytes(), b), nil
}

// marker keeps the mark of an open database. Its callers take turns.
type marker struct {
	path string   // of the database
	mark *os.File // nil: to be opened
	shm  *os.File // SQLite's index of the log. Closing it while that is in use would take SQLite's locks away
	log  *slog.Logger
	told bool
}

func (k *marker) name() string { return k.path + ".synced" }

// index is what SQLite's index says of the log now. Reading it before a sync
// says what that sync forces at least. The layout is fixed by the file format:
// sqlite.org/walformat.html section 2.2.
func (k *marker) index() (m logMark, ok bool) {
	if k.shm == nil {
		f, err := os.Open(k.path + "-shm")
		if err != nil {
			return m, false
		}
		k.shm = f
	}
	var b [96]byte // two copies of 48 bytes: while they differ it is being written
	if n, err := k.shm.ReadAt(b[:], 0); n < len(b) || err != nil || !bytes.Equal(b[:48], b[48:]) {
		return m, false
	}
	copy(m.salts[:], b[32:40])
	m.frames = binary.NativeEndian.Uint32(b[16:])
	return m, true
}

// put keeps m after the sync that followed it. A mark that cannot be written costs
// the look at the log at the next start, and nothing else.
func (k *marker) put(m logMark) {
	var err error
	if k.mark == nil {
		k.mark, err = os.OpenFile(k.name(), os.O_CREATE|os.O_RDWR, 0o600)
	}
	if err == nil {
		_, err = k.mark.WriteAt(m.bytes(), 0)
	}
	if err != nil && !k.told {
		k.told = true
		k.log.Warn("how much of the database's log is synced cannot be noted: damage to it would not be found", "err", err)
	}
}

// forget makes the mark say nothing, also after a power cut: call it before the
// log is cut or removed.
func (k *marker) forget() error {
	f, err := os.OpenFile(k.name(), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(logMark{}.bytes(), 0)
	return errors.Join(err, f.Sync(), f.Close())
}

// again notices that SQLite has made its index anew.
func (k *marker) again() {
	if k.shm == nil {
		return
	}
	now, err := os.Stat(k.path + "-shm")
	if err != nil {
		return
	}
	if had, err := k.shm.Stat(); err == nil && !os.SameFile(had, now) {
		k.shm.Close()
		k.shm = nil
	}
}

// close is for when SQLite has let go of the files.
func (k *marker) close() {
	for _, f := range []*os.File{k.mark, k.shm} {
		if f != nil {
			f.Close()
		}
	}
	k.mark, k.shm = nil, nil
}

// lookAtLog says whether the log has all that the mark of the last process says it
// must have. Nobody may have opened the database since.
func lookAtLog(path string) error {
	m, known, err := readMark(path + ".synced")
	if err != nil {
		return fmt.Errorf("read what is known of the database's log: %w", err)
	}
	if !known {
		return nil
	}
	f, err := os.Open(path + "-wal")
	if errors.Is(err, os.ErrNotExist) {
		return mailgrant.Errorf(mailgrant.Internal, err, "the database was not closed, and its log is missing: what was written last is in mailgrant.db-wal").
			Fix("put the file back beside mailgrant.db; where there is none, restore the newest backup: mailgrant restore FILE; what can still be read is saved by: mailgrant backup --salvage FILE")
	}
	if err != nil {
		return fmt.Errorf("open the log of the database: %w", err)
	}
	defer f.Close()
	if err := m.in(f); err != nil {
		return damagedFile(fmt.Errorf("its log: %w", err))
	}
	return nil
}

// in follows the checksums of a log as far as the mark says.
func (m logMark) in(log io.Reader) error {
	head := make([]byte, walHeader)
	if _, err := io.ReadFull(log, head); err != nil {
		return fmt.Errorf("its head: %w", err)
	}
	var order binary.ByteOrder = binary.LittleEndian
	if magic := binary.BigEndian.Uint32(head); magic&^1 != 0x377f0682 {
		return errors.New("its head is none")
	} else if magic&1 == 1 {
		order = binary.BigEndian
	}
	sum := checksum{order: order}
	if sum.add(head[:24]); !sum.is(head[24:]) {
		return errors.New("its head is not what was written")
	}
	if !bytes.Equal(head[16:24], m.salts[:]) {
		return nil // begun anew since, of which nothing is known
	}
	size := binary.BigEndian.Uint32(head[8:])
	if size < 512 || size > 65536 {
		return errors.New("its head names no size of pages")
	}
	frame := make([]byte, frameHeader+size)
	for n := range m.frames {
		if _, err := io.ReadFull(log, frame); err != nil {
			return fmt.Errorf("frame %d of %d: %w", n+1, m.frames, err)
		}
		sum.add(frame[:8])
		sum.add(frame[frameHeader:])
		if !bytes.Equal(frame[8:16], m.salts[:]) || !sum.is(frame[16:]) {
			return fmt.Errorf("frame %d of %d is not what was written", n+1, m.frames)
		}
	}
	return nil
}

// checksum is that of sqlite.org/fileformat2.html section 4.2.
type checksum struct {
	order binary.ByteOrder
	a, b  uint32
}

func (s *checksum) add(p []byte) {
	for ; len(p) >= 8; p = p[8:] {
		s.a += s.order.Uint32(p) + s.b
		s.b += s.order.Uint32(p[4:]) + s.a
	}
}

func (s *checksum) is(p []byte) bool {
	return binary.BigEndian.Uint32(p) == s.a && binary.BigEndian.Uint32(p[4:]) == s.b
}
