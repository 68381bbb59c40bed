package imap

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// A session is one connection that is logged in. One goroutine uses it.
type session struct {
	wire.Login
	c       Config
	reading provider.Reading

	link link
	caps caps
	bye  string // the server's farewell

	idling string // the tag of the IDLE that is on

	folders  []*tracked // to be read, in this order
	selected string     // as the server writes it; "" none
	chosen   *tracked   // the selected one, when it is read
	exists   uint32     // messages in it
	validity uint32     // of it
	readOnly bool

	places   places          // as of the last Next
	given    provider.Cursor // what it gave back
	single   bool            // the server tells a message's number behind its bytes
	strange  int             // answers with other messages than were expected
	refusals int             // messages refused one after the other
	told     bool            // of what this server cannot do
}

// caps are what the server offers.
type caps struct {
	known, idle, uidplus, move, saslIR, startTLS, namespace bool
	xoauth2, oauthbearer                                    bool
	auth                                                    []string // until the login
}

func readCaps(text string) (c caps) {
	c.known = true
	for _, w := range strings.Fields(strings.ToUpper(text)) {
		switch w {
		case "IDLE":
			c.idle = true
		case "UIDPLUS":
			c.uidplus = true
		case "MOVE":
			c.move = true
		case "SASL-IR":
			c.saslIR = true
		case "STARTTLS":
			c.startTLS = true
		case "NAMESPACE":
			c.namespace = true
		case "IMAP4REV2": // RFC 9051 has them within
			c.idle, c.uidplus, c.move, c.saslIR, c.namespace = true, true, true, true, true
		default:
			if m, ok := strings.CutPrefix(w, "AUTH="); ok && len(c.auth) < 20 {
				c.auth = append(c.auth, wire.Clean(m, 40))
				c.xoauth2 = c.xoauth2 || m == "XOAUTH2"
				c.oauthbearer = c.oauthbearer || m == "OAUTHBEARER"
			}
		}
	}
	return c
}

// takes says whether the server knows one of our mechanisms.
func (c *caps) takes(mech string) bool {
	return mech == "XOAUTH2" && c.xoauth2 || mech == "OAUTHBEARER" && c.oauthbearer
}

// refused is the server's no to a command, or its farewell.
type refused struct{ r response }

func (e *refused) Error() string { return e.r.said() }

// open logs in, finds the folders and opens the first.
func (s *session) open(ctx context.Context) error {
	if err := s.Open(ctx, s); err != nil {
		return err
	}
	err := s.begin(ctx)
	if err != nil {
		s.Close()
	}
	return err
}

func (s *session) begin(ctx context.Context) (err error) {
	defer s.during(ctx, "imap-list", &err)()
	all, err := s.list()
	if err != nil {
		return err
	}
	list, err := choose(all, s.reading.Folders)
	if err != nil {
		return err
	}
	for _, f := range list {
		s.folders = append(s.folders, &tracked{name: f.name, wire: f.wire, due: true})
	}
	s.Step = "imap-select"
	return s.choose(s.folders[0])
}

// during binds a call to its context, and makes what the caller may see of what
// went wrong.
func (s *session) during(ctx context.Context, step string, err *error) func() {
	s.Step = step
	if s.Conn == nil {
		return func() { *err = s.failed(ctx, *err) }
	}
	stop := s.Conn.CloseWith(ctx)
	return func() {
		stop()
		*err = s.failed(ctx, *err)
	}
}

// failed makes the error that leaves.
func (s *session) failed(ctx context.Context, err error) error {
	var take *takeError
	var e *mailgrant.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &take):
		return take.err
	case ctx.Err() != nil:
		if err != context.Cause(ctx) { // it may be in the middle of something
			s.HangUp()
		}
		return context.Cause(ctx)
	case errors.As(err, &e):
		return e
	}
	f := s.Explain(err)
	if no := (*refused)(nil); !errors.As(err, &no) || no.r.kind == "BYE" {
		s.HangUp()
	}
	return wire.Error(f, err, "%s does not give the mail of %s", s.Host, s.Way.Mailbox.Address)
}

// run sends one command and hears the server out. Answers that carry data go to
// each as well, if it is not nil.
func (s *session) run(command string, each func(response) error) (response, error) {
	return s.within(s.c.limits.command, command, each)
}

func (s *session) within(d time.Duration, command string, each func(response) error) (response, error) {
	tag, err := s.send(d, command)
	if err != nil {
		return response{}, err
	}
	return s.hear(tag, each)
}

// send writes one command.
func (s *session) send(d time.Duration, command string) (tag string, err error) {
	if s.Conn == nil {
		return "", net.ErrClosed
	}
	if err := s.endIdle(); err != nil {
		return "", err
	}
	tag = s.link.tag()
	s.link.left = floodMax
	s.Conn.SetDeadline(time.Now().Add(d))
	return tag, s.link.write([]byte(tag + " " + command + "\r\n"))
}

// hear reads up to the end of a command.
func (s *session) hear(tag string, each func(response) error) (response, error) {
	for {
		r, err := s.next()
		if err != nil {
			return r, err
		}
		switch {
		case r.tag == tag:
			return r, s.judge(r)
		case r.tag != "": // another's end, or "+" where nothing is to be added
			return r, errGarbled
		case each != nil:
			if err := each(r); err != nil {
				return r, err
			}
		}
	}
}

// next reads one answer and notes what it says of the session.
func (s *session) next() (response, error) {
	if s.Conn == nil {
		return response{}, net.ErrClosed
	}
	r, err := s.link.read()
	if err != nil {
		return r, s.farewell(err)
	}
	s.note(r)
	return r, nil
}

// farewell is why the server ended the connection, where it said so.
func (s *session) farewell(err error) error {
	if s.bye != "" && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err)) {
		return &refused{response{kind: "BYE", text: s.bye}}
	}
	return err
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// note keeps what concerns the session, whoever asked.
func (s *session) note(r response) {
	if r.tag != "" {
		return
	}
	switch r.kind {
	case "BYE":
		s.bye = strings.TrimPrefix(r.said(), "BYE ")
	case "CAPABILITY":
		s.caps = readCaps(string(r.rest))
	case "EXISTS":
		if r.num > s.exists && s.chosen != nil {
			s.chosen.due = true
		}
		s.exists = r.num
	case "EXPUNGE":
		if s.exists > 0 {
			s.exists--
		}
		if s.chosen != nil && r.num <= s.chosen.counted { // what came since stands behind
			s.chosen.counted--
		}
	}
}

// judge says whether the end of a command was a good one.
func (s *session) judge(r response) error {
	if r.kind == "OK" {
		return nil
	}
	return &refused{r}
}

// capability asks what the server offers now.
func (s *session) capability() error {
	s.caps = caps{}
	_, err := s.run("CAPABILITY", nil)
	return err
}

// Explain asks diagnosis about what the server said, or about what the connection
// died of.
func (s *session) Explain(err error) mailgrant.Finding {
	if no := (*refused)(nil); errors.As(err, &no) {
		return s.Diagnose(diagnose.Failure{Protocol: "imap", Text: strings.TrimSpace(s.Challenge + " " + no.r.said())})
	}
	return s.Diagnose(diagnose.Failure{Err: err})
}

// Pushes says whether the server tells of new mail. Of several folders it tells
// of the first.
func (s *session) Pushes() bool { return s.caps.idle }

// Close says farewell, without waiting for an answer.
func (s *session) Close() error {
	if s.Conn == nil {
		return nil
	}
	bye := s.link.tag() + " LOGOUT\r\n"
	if s.idling != "" {
		bye = "DONE\r\n" + bye
	}
	s.Conn.SetDeadline(time.Now().Add(time.Second))
	s.link.write([]byte(bye))
	s.HangUp()
	return nil
}

// HangUp ends the connection and forgets what was selected.
func (s *session) HangUp() {
	if s.Conn != nil {
		s.link.close()
	}
	s.Conn, s.selected, s.chosen, s.idling = nil, "", nil, ""
}

// quote writes a string into a command. RFC 3501 section 4.3.
func quote(name string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}

// choose selects a folder that is read.
func (s *session) choose(f *tracked) error {
	if s.selected == f.wire {
		return nil
	}
	err := s.selectFolder(f.wire, f)
	if no := (*refused)(nil); errors.As(err, &no) && no.r.kind == "NO" && f.name != "INBOX" {
		all, lerr := s.list()
		if lerr == nil && !slices.ContainsFunc(all, func(g folder) bool { return g.wire == f.wire }) {
			return absent(all, f.name)
		}
	}
	return err
}

// selectFolder opens one folder; f is nil when it is not read.
func (s *session) selectFolder(name string, f *tracked) error {
	s.selected, s.chosen, s.exists, s.validity, s.readOnly = "", nil, 0, 0, false
	var uidnext uint32
	r, err := s.run("SELECT "+quote(name), func(r response) error {
		n, ok := number(r.args)
		if r.kind == "OK" && ok && r.code == "UIDVALIDITY" {
			s.validity = n
		}
		if r.kind == "OK" && ok && r.code == "UIDNEXT" {
			uidnext = n
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.selected, s.chosen, s.readOnly = name, f, r.code == "READ-ONLY"
	if f != nil {
		f.opened(s.validity, uidnext, s.exists)
	}
	return nil
}
