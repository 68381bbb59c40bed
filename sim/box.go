package sim

import (
	"encoding/base64"
	"slices"
	"strings"
)

// The store: every mailbox has folders, and a folder has messages by UID and a
// log of what changed in it. IMAP, POP, Graph and the web mailbox all read here.

// The folders that every mailbox has, as they are called in English.
const (
	FolderInbox   = "Inbox"
	FolderSent    = "Sent Items"
	FolderDrafts  = "Drafts"
	FolderDeleted = "Deleted Items"
	FolderJunk    = "Junk Email"
	FolderArchive = "Archive"
)

// The flags of a message, as IMAP writes them.
const (
	FlagSeen    = `\Seen`
	FlagDraft   = `\Draft`
	FlagDeleted = `\Deleted`
)

// standard are those folders by the name that Graph has for them, and the
// attribute that IMAP shows.
var standard = []struct{ use, name, attr string }{
	{"inbox", FolderInbox, ""},
	{"drafts", FolderDrafts, `\Drafts`},
	{"sentitems", FolderSent, `\Sent`},
	{"deleteditems", FolderDeleted, `\Trash`},
	{"junkemail", FolderJunk, `\Junk`},
	{"archive", FolderArchive, ""},
}

// localNames are the same in other languages, in the order of standard.
var localNames = map[string][]string{
	"de": {"Posteingang", "Entwürfe", "Gesendete Elemente", "Gelöschte Elemente", "Junk-E-Mail", "Archiv"},
	"fr": {"Boîte de réception", "Brouillons", "Éléments envoyés", "Éléments supprimés", "Courrier indésirable", "Archive"},
	"ja": {"受信トレイ", "下書き", "送信済みアイテム", "削除済みアイテム", "迷惑メール", "アーカイブ"},
}

// A box is a mailbox as it lies in the store.
type box struct {
	address string
	folders []*folder
	byID    map[string]*Message // by both of their ids
	bytes   int64
	uidl    int                  // the last that was given
	mod     uint64               // counts changes
	ears    map[listener]*folder // who wants to hear of changes of which folder
}

// A listener is told that its folder changed. It is called with the store
// locked, and must not wait for anything.
type listener interface{ hear() }

// A folder of a box. Its name has "/" between its levels.
type folder struct {
	box      *box
	id       string
	name     string
	use      string // of the standard ones
	validity uint32
	next     uint32 // UID of the next message
	list     []*Message
	log      []change
	lost     uint64 // the last change that the log no longer has
	gone     bool   // deleted, or numbered anew
}

// logKept is how much of its log a folder remembers at least. Who asks for older
// changes has to begin anew, as with the real service.
const logKept = 100_000

// A change is one step in the log of a folder.
type change struct {
	mod           uint64
	uid           uint32
	came, gone    bool
	id, immutable string // of a message that is gone
}

// box finds a mailbox, which comes into being when it is first asked for. The
// lock is held.
func (p *post) box(address string) *box {
	address = strings.ToLower(address)
	if b := p.boxes[address]; b != nil {
		return b
	}
	b := &box{address: address, byID: map[string]*Message{}}
	p.boxes[address] = b
	var own Mailbox
	if at, ok := p.sim.world.now.Load().mailboxes[address]; ok {
		own = *at.item
	}
	local := localNames[strings.ToLower(own.Language)]
	for i, s := range standard {
		name := s.name
		if local != nil {
			name = local[i]
		}
		p.addFolder(b, name, s.use)
	}
	for _, name := range own.Folders {
		p.makeFolder(b, name)
	}
	return b
}

func (p *post) addFolder(b *box, name, use string) *folder {
	p.validity++
	f := &folder{box: b, id: newFolderID(), name: name, use: use, validity: p.validity, next: 1}
	if use != "" {
		f.id = folderID(b.address, use)
	}
	b.folders = append(b.folders, f)
	return f
}

// maxFolderName bounds the name of a folder with those above it, in bytes.
const maxFolderName = 1024

// makeFolder makes a folder and those above it, unless it is there; nil for a
// name that no folder can have.
func (p *post) makeFolder(b *box, name string) *folder {
	name = strings.Trim(name, "/")
	if name == "" || len(name) > maxFolderName || strings.Contains(name, "//") {
		return nil
	}
	if f := b.folder(name); f != nil {
		return f
	}
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		above := p.makeFolder(b, name[:i])
		name = above.name + name[i:]
	}
	b.mod++
	return p.addFolder(b, name, "")
}

// folder finds a folder by its name, or by the English name of a standard one.
func (b *box) folder(name string) *folder {
	for _, f := range b.folders {
		if f.name == name || f.use == "inbox" && strings.EqualFold(name, FolderInbox) {
			return f
		}
	}
	for _, s := range standard {
		if strings.EqualFold(s.name, name) {
			return b.byUse(s.use)
		}
	}
	// Below the inbox, whatever that is called.
	if first, rest, ok := strings.Cut(name, "/"); ok && strings.EqualFold(first, FolderInbox) {
		if inbox := b.byUse("inbox"); inbox.name != first {
			return b.folder(inbox.name + "/" + rest)
		}
	}
	return nil
}

func (b *box) byUse(use string) *folder {
	for _, f := range b.folders {
		if f.use == use {
			return f
		}
	}
	return nil
}

func (b *box) byFolderID(id string) *folder {
	for _, f := range b.folders {
		if f.id == id {
			return f
		}
	}
	return nil
}

// below lists the folders directly below one.
func (b *box) below(f *folder) []*folder {
	var list []*folder
	for _, o := range b.folders {
		rest, ok := strings.CutPrefix(o.name, f.name+"/")
		if ok && !strings.Contains(rest, "/") {
			list = append(list, o)
		}
	}
	return list
}

func (b *box) top() []*folder {
	return slices.DeleteFunc(slices.Clone(b.folders), func(f *folder) bool { return strings.Contains(f.name, "/") })
}

// add files a message.
func (f *folder) add(m *Message) {
	b := f.box
	b.mod++
	m.Mailbox, m.Folder, m.folder = b.address, f.name, f
	m.UID, m.mod = f.next, b.mod
	f.next++
	f.list = append(f.list, m)
	f.note(change{mod: b.mod, uid: m.UID, came: true})
	b.byID[m.ID], b.byID[m.ImmutableID] = m, m
	b.bytes += int64(len(m.Raw))
	f.tell()
}

// at is the place of a UID in the list, or of the next one.
func (f *folder) at(uid uint32) (int, bool) {
	return slices.BinarySearchFunc(f.list, uid, func(m *Message, uid uint32) int { return int(int64(m.UID) - int64(uid)) })
}

func (f *folder) find(uid uint32) *Message {
	if i, ok := f.at(uid); ok {
		return f.list[i]
	}
	return nil
}

// take takes a message out of its folder.
func (f *folder) take(m *Message) {
	b := f.box
	i, ok := f.at(m.UID)
	if !ok {
		return
	}
	if i == 0 { // a queue is emptied from its front
		f.list[0] = nil
		f.list = f.list[1:]
	} else {
		f.list = slices.Delete(f.list, i, i+1)
	}
	b.mod++
	f.note(change{mod: b.mod, uid: m.UID, gone: true, id: m.ID, immutable: m.ImmutableID})
	delete(b.byID, m.ID)
	delete(b.byID, m.ImmutableID)
	b.bytes -= int64(len(m.Raw))
	f.tell()
}

// mark notes that a message changed.
func (f *folder) mark(m *Message) {
	f.box.mod++
	m.mod = f.box.mod
	f.note(change{mod: m.mod, uid: m.UID})
	f.tell()
}

// note puts a change at the end of the log.
func (f *folder) note(c change) {
	if len(f.log) >= 2*logKept {
		f.lost = f.log[logKept-1].mod
		f.log = slices.Clone(f.log[logKept:])
	}
	f.log = append(f.log, c)
}

func (f *folder) tell() {
	for who, of := range f.box.ears {
		if of == f {
			who.hear()
		}
	}
}

// since lists the changes after a moment, oldest first.
func (f *folder) since(mod uint64) []change {
	i, _ := slices.BinarySearchFunc(f.log, mod+1, func(c change, mod uint64) int {
		switch {
		case c.mod < mod:
			return -1
		case c.mod > mod:
			return 1
		}
		return 0
	})
	return f.log[i:]
}

// listen lets who hear of changes of a folder until it is dropped.
func (b *box) listen(who listener, f *folder) {
	if b.ears == nil {
		b.ears = map[listener]*folder{}
	}
	b.ears[who] = f
}

func (m *Message) has(flag string) bool { return containsFold(m.Flags, flag) }

// setFlags puts flags in the place of those that are there.
func (m *Message) setFlags(flags []string) bool {
	var next []string
	for _, f := range flags {
		if !containsFold(next, f) && !strings.EqualFold(f, `\Recent`) {
			next = append(next, f)
		}
	}
	if slices.Equal(next, m.Flags) {
		return false
	}
	m.Flags = next
	m.folder.mark(m)
	return true
}

func (m *Message) addFlags(flags ...string) bool { return m.setFlags(slices.Concat(m.Flags, flags)) }

func (m *Message) dropFlags(flags ...string) bool {
	return m.setFlags(slices.DeleteFunc(slices.Clone(m.Flags), func(f string) bool { return containsFold(flags, f) }))
}

// newItemID looks like an id of Exchange: long, and with characters that need
// care in a path. It changes when the message moves.
func newItemID() string {
	return "AAMkA" + base64.URLEncoding.EncodeToString(randomBytes(72)) + "="
}

// newImmutableID stays for as long as the message is in its mailbox.
func newImmutableID() string {
	return "AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0A" + base64.RawURLEncoding.EncodeToString(randomBytes(27)) + "="
}

func newFolderID() string {
	return "AQMkA" + base64.RawURLEncoding.EncodeToString(randomBytes(32)) + "AAAA="
}

// folderID is that of a folder which every mailbox has: always the same.
func folderID(address, name string) string {
	return "AQMkA" + challenge("S256", strings.ToLower(address)+"/"+name) + "AAAA="
}
