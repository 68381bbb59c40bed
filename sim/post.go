package sim

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"mime"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"time"
)

// The folders of a mailbox.
const (
	FolderInbox  = "Inbox"
	FolderSent   = "Sent Items"
	FolderDrafts = "Drafts"
)

// A Message lies in a folder of a mailbox. Mail to addresses outside of the
// world is caught too, in a mailbox of that address.
type Message struct {
	ID        string    `json:"id"`
	Mailbox   string    `json:"mailbox"` // primary address
	Folder    string    `json:"folder"`
	From      string    `json:"from"` // envelope
	To        []string  `json:"to"`   // envelope
	Subject   string    `json:"subject"`
	MessageID string    `json:"message_id"` // with its angle brackets
	Raw       []byte    `json:"raw,omitempty"`
	At        time.Time `json:"at"`
	Via       string    `json:"via"` // smtp or graph

	draft *draft // in Drafts
}

// A post keeps all mail in memory.
type post struct {
	sim *Sim

	mu      sync.Mutex
	all     []*Message            // oldest first
	boxes   map[string][]*Message // by mailbox, oldest first
	changed chan struct{}         // closed and replaced by each arrival
	version int                   // counts arrivals
}

func newPost(s *Sim) *post {
	return &post{sim: s, boxes: map[string][]*Message{}, changed: make(chan struct{})}
}

// Mail returns what was delivered to an address, oldest first. All mail sent
// anywhere is caught, so the address may be outside of the world.
func (s *Sim) Mail(address string) []Message {
	return s.mail.list(s.mailboxOf(address), FolderInbox)
}

// Sent returns the Sent Items of a mailbox, oldest first.
func (s *Sim) Sent(address string) []Message {
	return s.mail.list(s.mailboxOf(address), FolderSent)
}

// AllMail returns every message of every folder, oldest first.
func (s *Sim) AllMail() []Message {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	return values(s.mail.all)
}

// ClearMail throws all mail away.
func (s *Sim) ClearMail() {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	s.mail.all, s.mail.boxes = nil, map[string][]*Message{}
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

// put files a copy of m into a mailbox and gives it an id if it has none.
func (p *post) put(mailbox, folder string, m Message) *Message {
	m.Mailbox, m.Folder = strings.ToLower(mailbox), folder
	if m.ID == "" {
		m.ID = newItemID()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, &m)
	p.boxes[m.Mailbox] = append(p.boxes[m.Mailbox], &m)
	if keep := p.sim.world.now.Load().Knobs.KeepMail; keep > 0 && len(p.all) > keep {
		p.drop(p.all[0])
	}
	p.version++
	close(p.changed)
	p.changed = make(chan struct{})
	return &m
}

// arrivals is closed by the next arrival.
func (p *post) arrivals() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *post) drop(m *Message) {
	is := func(o *Message) bool { return o == m }
	p.all = slices.DeleteFunc(p.all, is)
	p.boxes[m.Mailbox] = slices.DeleteFunc(p.boxes[m.Mailbox], is)
}

// remove takes a message away and says whether it was there.
func (p *post) remove(mailbox, id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.boxes[mailbox] {
		if m.ID == id {
			p.drop(m)
			return true
		}
	}
	return false
}

// change lets f change a message and says whether it is there.
func (p *post) change(mailbox, id string, f func(*Message)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.boxes[mailbox] {
		if m.ID == id {
			f(m)
			return true
		}
	}
	return false
}

func (p *post) list(mailbox, folder string) []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	var in []*Message
	for _, m := range p.boxes[mailbox] {
		if folder == "" || m.Folder == folder {
			in = append(in, m)
		}
	}
	return values(in)
}

func (p *post) find(mailbox, id string) (Message, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.boxes[mailbox] {
		if m.ID == id {
			return *m, true
		}
	}
	return Message{}, false
}

func (p *post) mailboxes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for name, held := range p.boxes {
		if len(held) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// size is the bytes held for a mailbox.
func (p *post) size(mailbox string) (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.boxes[mailbox] {
		n += int64(len(m.Raw))
	}
	return n
}

func values(list []*Message) []Message {
	all := make([]Message, len(list))
	for i, m := range list {
		all[i] = *m
	}
	return all
}

// newItemID looks like an id of Exchange: long, and with characters that need
// care in a path.
func newItemID() string {
	return "AAMkA" + base64.URLEncoding.EncodeToString(randomBytes(72)) + "="
}

// headerOf reads the header of a message as far as it can be read.
func headerOf(raw []byte) mail.Header {
	head, _ := splitMessage(raw)
	m, err := mail.ReadMessage(bytes.NewReader(append(slices.Clone(head), "\r\n"...)))
	if err != nil {
		return lenientHeader(head)
	}
	return m.Header
}

// lenientHeader takes the fields it understands and leaves out the others.
func lenientHeader(head []byte) mail.Header {
	h := mail.Header{}
	for _, f := range fieldsOf(head) {
		name, value, ok := strings.Cut(string(f), ":")
		if !ok || strings.ContainsAny(name, " \t") {
			continue
		}
		value = strings.NewReplacer("\r", "", "\n", "").Replace(value)
		key := strings.ToLower(name)
		for _, known := range []string{"From", "To", "Cc", "Bcc", "Reply-To", "Sender", "Subject", "Message-Id", "Date", "Importance",
			"Content-Type", "Content-Transfer-Encoding", "Content-Disposition"} {
			if strings.EqualFold(known, key) {
				h[known] = append(h[known], strings.TrimSpace(value))
			}
		}
	}
	return h
}

// splitMessage cuts raw behind the last field of its header. The empty line
// stays with the body.
func splitMessage(raw []byte) (head, body []byte) {
	if i := bytes.Index(raw, []byte("\r\n\r\n")); i >= 0 {
		return raw[:i+2], raw[i+2:]
	}
	if i := bytes.Index(raw, []byte("\n\n")); i >= 0 {
		return raw[:i+1], raw[i+1:]
	}
	return raw, nil
}

// fieldsOf cuts a header into its fields with their line ends.
func fieldsOf(head []byte) [][]byte {
	var fields [][]byte
	for line := range bytes.Lines(head) {
		if len(fields) > 0 && (line[0] == ' ' || line[0] == '\t') {
			last := &fields[len(fields)-1]
			*last = append(slices.Clip(*last), line...)
			continue
		}
		fields = append(fields, line)
	}
	return fields
}

// withoutField takes all fields of a name out of a message and leaves every
// other byte as it is.
func withoutField(raw []byte, name string) []byte {
	head, body := splitMessage(raw)
	var out []byte
	for _, f := range fieldsOf(head) {
		n, _, _ := bytes.Cut(f, []byte(":"))
		if !strings.EqualFold(string(bytes.TrimSpace(n)), name) {
			out = append(out, f...)
		}
	}
	return append(out, body...)
}

func decodeWords(s string) string {
	if d, err := new(mime.WordDecoder).DecodeHeader(s); err == nil {
		return d
	}
	return s
}

// addressesIn lists the bare addresses of some header fields.
func addressesIn(h mail.Header, fields ...string) []string {
	var all []string
	for _, f := range fields {
		for _, value := range h[f] {
			list, err := mail.ParseAddressList(value)
			if err != nil {
				continue
			}
			for _, a := range list {
				all = append(all, a.Address)
			}
		}
	}
	return all
}

// newMessageID is one in the way of Exchange, for messages without.
func newMessageID() string {
	return "<" + strings.ToUpper(rand.Text()[:20]) + "@SY5P282MB4321.AUSP282.PROD.OUTLOOK.COM>"
}
