package sim

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Message lies in a folder of a mailbox. Mail to addresses outside of the
// world is caught too, in a mailbox of that address.
type Message struct {
	ID          string    `json:"id"`           // changes when the message moves to another folder
	ImmutableID string    `json:"immutable_id"` // does not
	Mailbox     string    `json:"mailbox"`      // primary address
	Folder      string    `json:"folder"`       // with "/" between its levels
	UID         uint32    `json:"uid"`          // in the folder
	UIDL        string    `json:"uidl"`         // of POP
	Flags       []string  `json:"flags,omitempty"`
	From        string    `json:"from"` // envelope
	To          []string  `json:"to"`   // envelope
	Subject     string    `json:"subject"`
	MessageID   string    `json:"message_id"` // with its angle brackets
	Raw         []byte    `json:"raw,omitempty"`
	At          time.Time `json:"at"`  // when it was received
	Via         string    `json:"via"` // smtp, graph, imap, or outside

	draft  *draft // in Drafts
	folder *folder
	mod    uint64 // its last change
	order  int    // in which it came, among all
}

// A post keeps all mail in memory.
type post struct {
	sim *Sim

	mu       sync.Mutex
	boxes    map[string]*box
	queue    []*Message    // oldest first, those that are gone too
	held     int           // messages
	validity uint32        // UIDVALIDITY of the newest folder
	changed  chan struct{} // closed and replaced by each arrival
	version  int           // counts arrivals

	// tell is called with every change of a message, with the lock held.
	tell func(what string, m *Message)
}

func newPost(s *Sim) *post {
	return &post{sim: s, boxes: map[string]*box{}, validity: 13, changed: make(chan struct{}), tell: func(string, *Message) {}}
}

// What is told of a message, in the words of Graph.
const (
	itCame    = "created"
	itChanged = "updated"
	itLeft    = "deleted"
)

// Mail returns what was delivered to an address, oldest first. All mail sent
// anywhere is caught, so the address may be outside of the world.
func (s *Sim) Mail(address string) []Message {
	return s.mail.list(s.mailboxOf(address), FolderInbox)
}

// Sent returns the Sent Items of a mailbox, oldest first.
func (s *Sim) Sent(address string) []Message {
	return s.mail.list(s.mailboxOf(address), FolderSent)
}

// MailIn returns the messages of a folder, oldest first.
func (s *Sim) MailIn(address, folder string) []Message {
	return s.mail.list(s.mailboxOf(address), folder)
}

// AllMail returns every message of every folder, oldest first.
func (s *Sim) AllMail() []Message {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	var all []*Message
	for _, b := range s.mail.boxes {
		for _, f := range b.folders {
			all = append(all, f.list...)
		}
	}
	slices.SortFunc(all, func(a, b *Message) int { return cmp.Compare(a.order, b.order) })
	return values(all)
}

// ClearMail throws all mail away. Folders stay.
func (s *Sim) ClearMail() {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	for _, b := range s.mail.boxes {
		for _, f := range b.folders {
			for len(f.list) > 0 {
				s.mail.drop(f.list[0])
			}
		}
	}
}

// WaitMail returns the mail of an address as soon as there are at least n, or
// what is there with an error when ctx ends before.
func (s *Sim) WaitMail(ctx context.Context, address string, n int) ([]Message, error) {
	for {
		changed := s.mail.arrivals()
		if have := s.Mail(address); len(have) >= n {
			return have, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s.Mail(address), context.Cause(ctx)
		case <-s.ctx.Done():
			return s.Mail(address), context.Cause(s.ctx)
		}
	}
}

// A FolderInfo is what there is to know of a folder.
type FolderInfo struct {
	Name        string `json:"name"`
	Use         string `json:"use,omitempty"` // as Graph calls the standard ones: "inbox", "sentitems", …
	UIDValidity uint32 `json:"uid_validity"`
	UIDNext     uint32 `json:"uid_next"`
	Count       int    `json:"count"`
	Unread      int    `json:"unread"`
}

func (f *folder) info() FolderInfo {
	i := FolderInfo{Name: f.name, Use: f.use, UIDValidity: f.validity, UIDNext: f.next, Count: len(f.list)}
	for _, m := range f.list {
		if !m.has(FlagSeen) {
			i.Unread++
		}
	}
	return i
}

// Folders lists the folders of a mailbox.
func (s *Sim) Folders(address string) []FolderInfo {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	var list []FolderInfo
	for _, f := range s.mail.box(s.mailboxOf(address)).folders {
		list = append(list, f.info())
	}
	return list
}

// MakeFolder makes a folder, with "/" between its levels, unless it is there.
func (s *Sim) MakeFolder(address, name string) error {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	if s.mail.makeFolder(s.mail.box(s.mailboxOf(address)), name) == nil {
		return fmt.Errorf("a folder needs a name of at most %d bytes, and one on each level", maxFolderName)
	}
	return nil
}

// RemoveFolder deletes a folder with all that is in and below it. The standard
// ones stay.
func (s *Sim) RemoveFolder(address, name string) error {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	f, err := s.mail.named(address, name)
	if err != nil {
		return err
	}
	return s.mail.removeFolder(f)
}

// ResetUIDValidity numbers the messages of a folder anew, as a server does that
// lost its index.
func (s *Sim) ResetUIDValidity(address, name string) error {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	f, err := s.mail.named(address, name)
	if err != nil {
		return err
	}
	s.mail.validity++
	fresh := *f
	f.gone = true // for those who have it open
	f.tell()
	next := &fresh
	next.validity, next.next, next.log, next.lost = s.mail.validity, 1, nil, 0
	f.list = nil
	next.box.folders[slices.Index(next.box.folders, f)] = next
	for _, m := range next.list {
		next.box.mod++
		m.folder, m.UID, m.mod = next, next.next, next.box.mod
		next.note(change{mod: m.mod, uid: m.UID, came: true})
		next.next++
	}
	return nil
}

// Move puts a message into another folder of its mailbox, and returns it with
// its new id.
func (s *Sim) Move(id, folder string) (Message, error) {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	m := s.mail.byID(id)
	if m == nil {
		return Message{}, fmt.Errorf("%w message %q", errNotThere, id)
	}
	to := m.folder.box.folder(folder)
	if to == nil {
		return Message{}, fmt.Errorf("%w folder %q", errNotThere, folder)
	}
	s.mail.move(m, to)
	return *m, nil
}

// SetFlags puts flags in the place of those of a message.
func (s *Sim) SetFlags(id string, flags ...string) error {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	m := s.mail.byID(id)
	if m == nil {
		return fmt.Errorf("%w message %q", errNotThere, id)
	}
	if m.setFlags(flags) {
		s.mail.tell(itChanged, m)
	}
	return nil
}

// Expunge takes a message away for good.
func (s *Sim) Expunge(id string) error {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	m := s.mail.byID(id)
	if m == nil {
		return fmt.Errorf("%w message %q", errNotThere, id)
	}
	s.mail.drop(m)
	return nil
}

func (p *post) byID(id string) *Message {
	for _, b := range p.boxes {
		if m := b.byID[id]; m != nil {
			return m
		}
	}
	return nil
}

func (p *post) named(address, name string) (*folder, error) {
	f := p.box(p.sim.mailboxOf(address)).folder(cmp.Or(name, FolderInbox))
	if f == nil {
		return nil, fmt.Errorf("%w folder %q", errNotThere, name)
	}
	return f, nil
}

func (p *post) removeFolder(f *folder) error {
	if f.use != "" {
		return fmt.Errorf("%s cannot be deleted", f.name)
	}
	for _, o := range f.box.below(f) {
		if err := p.removeFolder(o); err != nil {
			return err
		}
	}
	for len(f.list) > 0 {
		p.drop(f.list[0])
	}
	f.gone = true
	f.tell()
	f.box.folders = slices.DeleteFunc(f.box.folders, func(o *folder) bool { return o == f })
	return nil
}

// seen is the number of arrivals so far.
func (p *post) seen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.version
}

// mailboxOf is the mailbox that mail to address lands in: that of the plain
// address behind a plus, the primary of an alias, or itself.
func (s *Sim) mailboxOf(address string) string {
	address = strings.ToLower(address)
	v := s.world.now.Load()
	for _, a := range []string{address, withoutPlus(address)} {
		if at, ok := v.mailboxes[a]; ok {
			return strings.ToLower(at.item.Address)
		}
	}
	return address
}

func withoutPlus(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	local, _, _ = strings.Cut(local, "+")
	return local + "@" + domain
}

func domainOf(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}

// put files a copy of m into a folder, and gives it the ids it lacks.
func (p *post) put(mailbox, folder string, m Message) Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.box(mailbox)
	f := b.folder(folder)
	if f == nil {
		f = b.byUse("inbox")
	}
	return *p.file(f, m)
}

func (p *post) file(f *folder, m Message) *Message {
	f.box.uidl++
	m.ID, m.ImmutableID = cmp.Or(m.ID, newItemID()), cmp.Or(m.ImmutableID, newImmutableID())
	m.UIDL = strconv.Itoa(f.box.uidl)
	p.version++
	p.held++
	m.order = p.version
	f.add(&m)
	p.keep(&m)
	p.tell(itCame, &m)
	close(p.changed)
	p.changed = make(chan struct{})
	return &m
}

// keep puts m into the queue, and drops the oldest when there are too many.
func (p *post) keep(m *Message) {
	p.queue = append(p.queue, m)
	limit := p.sim.world.now.Load().Knobs.KeepMail
	for limit > 0 && p.held > limit {
		if p.queue[0].folder != nil {
			p.drop(p.queue[0])
		}
		p.queue = p.queue[1:]
	}
	if len(p.queue) > 2*p.held+1000 {
		p.queue = slices.DeleteFunc(p.queue, func(m *Message) bool { return m.folder == nil })
	}
}

// arrivals is closed by the next arrival.
func (p *post) arrivals() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// drop takes a message away for good.
func (p *post) drop(m *Message) {
	p.tell(itLeft, m)
	m.folder.take(m)
	m.folder = nil
	p.held--
}

// move puts a message into another folder: it leaves one and comes to the
// other, with a new id.
func (p *post) move(m *Message, to *folder) {
	p.tell(itLeft, m)
	m.folder.take(m)
	m.ID = newItemID()
	to.add(m)
	p.tell(itCame, m)
}

// remove takes a message away and says whether it was there.
func (p *post) remove(mailbox, id string) bool {
	return p.with(mailbox, id, p.drop)
}

// with lets f have a message and says whether it is there.
func (p *post) with(mailbox, id string, f func(*Message)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var m *Message
	if b := p.boxes[strings.ToLower(mailbox)]; b != nil {
		m = b.byID[id]
	}
	if m != nil {
		f(m)
	}
	return m != nil
}

// rewrite gives a message other bytes.
func (p *post) rewrite(m *Message, raw []byte) {
	m.folder.box.bytes += int64(len(raw) - len(m.Raw))
	m.Raw = raw
	m.folder.mark(m)
	p.tell(itChanged, m)
}

// list has the messages of a folder, or of all of them, oldest first.
func (p *post) list(mailbox, name string) []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.boxes[strings.ToLower(mailbox)]
	if b == nil {
		return nil
	}
	var in []*Message
	for _, f := range b.folders {
		if name == "" || f == b.folder(name) {
			in = append(in, f.list...)
		}
	}
	slices.SortStableFunc(in, func(a, b *Message) int { return cmp.Compare(a.order, b.order) })
	return values(in)
}

func (p *post) find(mailbox, id string) (m Message, ok bool) {
	ok = p.with(mailbox, id, func(found *Message) { m = *found })
	return m, ok
}

func (p *post) mailboxes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for name, b := range p.boxes {
		if len(b.byID) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// size is the bytes held for a mailbox.
func (p *post) size(mailbox string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.boxes[strings.ToLower(mailbox)]; b != nil {
		return b.bytes
	}
	return 0
}

func values(list []*Message) []Message {
	all := make([]Message, len(list))
	for i, m := range list {
		all[i] = *m
	}
	return all
}
