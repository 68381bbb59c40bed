package imap

import (
	"context"
	"net"
	"time"
)

// Wait idles in the first folder, and asks for the others when it is time to
// poll. It comes back after a while in any case: a server that forgets to tell
// is found out then.
func (s *session) Wait(ctx context.Context) (err error) {
	s.Step = "imap-idle"
	defer func() { err = s.failed(ctx, err) }()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(s.folders) == 0 || s.Conn == nil {
		return net.ErrClosed
	}
	first, rest := s.folders[0], s.folders[1:]
	every := s.reading.Poll
	if every <= 0 {
		every = usualPoll
	}
	began := time.Now()
	for {
		if err := s.choose(first); err != nil {
			return err
		}
		if s.anyDue() {
			return nil
		}
		end := began.Add(every)
		if s.caps.idle {
			end = began.Add(s.c.limits.rearm)
		}
		until := end
		if len(rest) > 0 {
			until = earlier(end, time.Now().Add(every))
		}
		if err := s.pause(ctx, until); err != nil || s.anyDue() {
			return err
		}
		if err := s.poll(rest); err != nil || s.anyDue() {
			return err
		}
		if !time.Now().Before(end) {
			first.due = true
			return nil
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (s *session) anyDue() bool {
	for _, t := range s.folders {
		if t.due || len(t.pending)+len(t.odd) > 0 {
			return true
		}
	}
	return false
}

// pause waits for the server to say something that matters. When ctx ends the
// connection stays as it is: IDLE is ended by the next command.
func (s *session) pause(ctx context.Context, until time.Time) error {
	conn := s.Conn
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		conn.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-woken // or it would cut short what comes next
		}
	}()
	if s.caps.idle {
		if err := s.startIdle(); err != nil || !s.caps.idle {
			return err
		}
	}
	for !s.anyDue() {
		came, err := s.link.await(ctx, until)
		if err != nil {
			return s.farewell(err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !came {
			break
		}
		conn.SetReadDeadline(time.Now().Add(s.c.limits.command))
		r, err := s.next()
		if err != nil {
			return err
		}
		if r.tag != "" && r.tag == s.idling { // the server ended it
			s.idling = ""
			if err := s.judge(r); err != nil {
				return err
			}
			break
		}
	}
	if s.caps.idle {
		return s.endIdle()
	}
	_, err := s.run("NOOP", nil)
	return err
}

// startIdle begins IDLE. A server that says no to it is polled. RFC 2177.
func (s *session) startIdle() error {
	tag, err := s.send(s.c.limits.command, "IDLE")
	if err != nil {
		return err
	}
	for {
		r, err := s.next()
		switch {
		case err != nil:
			return err
		case r.tag == "+":
			s.idling = tag
			return nil
		case r.tag == tag:
			if r.kind == "OK" || s.ofMessage(&refused{r}) {
				s.caps.idle = false
				return nil
			}
			return &refused{r}
		case r.tag != "":
			return errGarbled
		}
	}
}

// endIdle ends IDLE, if one is on.
func (s *session) endIdle() error {
	if s.idling == "" {
		return nil
	}
	tag := s.idling
	s.idling = ""
	s.link.left = floodMax
	s.Conn.SetDeadline(time.Now().Add(s.c.limits.command))
	if err := s.link.write([]byte("DONE\r\n")); err != nil {
		return err
	}
	_, err := s.hear(tag, nil)
	return err
}

// poll asks for folders that are not selected.
func (s *session) poll(list []*tracked) error {
	for _, t := range list {
		_, err := s.run("STATUS "+quote(t.wire)+" (MESSAGES UIDNEXT UIDVALIDITY)", func(r response) error {
			if r.kind != "STATUS" {
				return nil
			}
			st, err := readStatus(r.rest)
			if err != nil {
				return err
			}
			t.due = t.due || !t.hasCount || st.validity != t.validity || st.messages != t.counted || st.hasNext && st.uidnext != t.uidnext
			if st.hasNext {
				t.uidnext = st.uidnext
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
