package submission

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A dataState is where in a line the bytes of a message stand: RFC 5321
// section 4.5.2, without the liberties.
//
//	begin ──"."──▶ dot ──CR──▶ dotCR ──LF──▶ end
//	  ▲ │           │
//	  │ └──other──▶ text ◀─other┘
//	  │              │CR
//	  └─────LF────── cr
//
// Every CR and LF that has no arrow is an error that ends the session.
type dataState int

const (
	dataBegin dataState = iota
	dataText
	dataCR
	dataDot
	dataDotCR
	dataEnd
)

// A body reads the bytes of one message as they come, in whatever pieces.
type body struct {
	state dataState
	size  int64
}

// feed takes the next piece, hands what belongs to the message to write, in
// slices as large as they can be, and says how much of the piece it used: all,
// or less when the message ended in it.
func (b *body) feed(p []byte, write func([]byte)) (used int, err error) {
	from := 0 // p[from:i] belongs to the message and is not handed over yet
	i := 0
	emit := func(to int) {
		if to > from {
			b.size += int64(to - from)
			write(p[from:to])
		}
	}
	for i < len(p) {
		switch b.state {
		case dataBegin:
			if p[i] == '.' {
				emit(i)
				b.state = dataDot
				i++
				from = i
				continue
			}
			b.state = dataText
		case dataDot:
			if p[i] == '\r' {
				b.state = dataDotCR
				i++
				from = i
				continue
			}
			b.state = dataText
		case dataDotCR:
			if p[i] != '\n' {
				return i, errBare
			}
			b.state = dataEnd
			return i + 1, nil
		case dataCR:
			if p[i] != '\n' {
				return i, errBare
			}
			b.state = dataBegin
			i++
		case dataText:
			n, next, err := text(p[i:])
			if err != nil {
				return i, err
			}
			i += n
			b.state = next
		}
	}
	emit(i)
	return i, nil
}

// text reads to the end of the line or of the piece.
func text(p []byte) (n int, next dataState, err error) {
	lf := bytes.IndexByte(p, '\n')
	line := p
	if lf >= 0 {
		line = p[:lf]
	}
	cr := bytes.IndexByte(line, '\r')
	switch {
	case lf >= 0 && cr >= 0 && cr == lf-1:
		return lf + 1, dataBegin, nil
	case lf < 0 && cr < 0:
		return len(p), dataText, nil
	case lf < 0 && cr == len(p)-1:
		return len(p), dataCR, nil
	}
	return 0, 0, errBare
}

var bodyBuffers = sync.Pool{New: func() any { b := make([]byte, bodyBuffer); return &b }}

// receive streams a message into the draft. What the draft has against it is
// kept for the answer, which nobody reads before the end of the data. The second
// error means that the session cannot go on.
func (s *session) receive(d Draft) (b body, refused, broken error) {
	small := s.buf
	pooled := bodyBuffers.Get().(*[]byte)
	s.buf, s.r, s.w = *pooled, 0, 0
	defer func() {
		rest := s.buf[s.r:s.w] // commands sent along with the end of the data
		if len(rest) > len(small) {
			small = make([]byte, len(rest))
		}
		s.r, s.w = 0, copy(small, rest)
		s.buf = small
		bodyBuffers.Put(pooled)
	}()
	write := func(p []byte) {
		switch {
		case refused != nil:
		case b.size > s.srv.Limits.Message:
			refused = s.tooLarge()
		default:
			if _, err := d.Write(p); err != nil {
				refused = err
			}
		}
	}
	began, arrived := time.Now(), int64(0)
	for reads := 0; ; reads++ {
		if reads > 0 {
			s.quickAck()
		}
		if err := s.more(began, arrived); err != nil {
			return b, refused, err
		}
		arrived += int64(s.w - s.r)
		used, err := b.feed(s.buf[s.r:s.w], write)
		s.r += used
		if err != nil {
			return b, refused, err
		}
		if b.state == dataEnd {
			return b, refused, nil
		}
		if arrived > 2*s.srv.Limits.Message+bodyBuffer {
			return b, refused, s.tooLarge()
		}
	}
}

// more reads the next piece of a message. A message may take the idle time and a
// second for each KiB, and no longer than a session.
func (s *session) more(began time.Time, arrived int64) error {
	if err := s.flush(); err != nil {
		return err
	}
	l := s.srv.Limits
	by := began.Add(min(l.Idle+time.Duration(arrived>>10)*time.Second, l.Session))
	for {
		s.deadline(by)
		err := s.read(len(s.buf))
		if isTimeout(err) && time.Now().Before(by) && s.srv.closing.Load() {
			s.readBy = time.Time{} // the shutdown woke us, not our own deadline
			continue
		}
		switch {
		case isTimeout(err):
			return errIdle
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		}
		return err
	}
}

func (s *session) tooLarge() error {
	return mailgrant.Errorf(mailgrant.TooLarge, nil, "the message is larger than %d bytes", s.srv.Limits.Message).
		Fix("send a smaller one, or raise the limit of this door")
}
