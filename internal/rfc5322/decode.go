package rfc5322

import "bytes"

type transfer int

const (
	identity transfer = iota
	inBase64
	inQuoted
)

// encodingOf knows a transfer encoding, in the spellings that are met.
func encodingOf(s string) (e transfer, ok bool) {
	switch s {
	case "", "7bit", "8bit", "binary", "7-bit", "8-bit", "7bits", "8bits", "none":
		return identity, true
	case "base64", "base-64":
		return inBase64, true
	case "quoted-printable", "quoted printable", "quotedprintable", "qp":
		return inQuoted, true
	}
	return identity, false
}

// A decoder undoes a transfer encoding. It takes what is broken as far as it can
// be understood: letters that do not belong are left out of base64, and stand for
// themselves in quoted-printable.
type decoder struct {
	to   interface{ data(p []byte) bool }
	enc  transfer
	full bool // no more is wanted

	bits  uint32 // base64: what waits for its four letters
	n     int
	carry []byte // quoted-printable: a line that is not over
	out   []byte
}

func (d *decoder) begin(e transfer) {
	d.enc, d.full, d.bits, d.n, d.carry, d.out = e, false, 0, 0, d.carry[:0], d.out[:0]
}

func (d *decoder) write(p []byte) {
	switch {
	case d.full:
	case d.enc == inBase64:
		d.base64(p)
	case d.enc == inQuoted:
		d.quoted(p)
	default:
		d.full = !d.to.data(p)
	}
}

// close ends the content.
func (d *decoder) close() {
	if d.full {
		return
	}
	switch d.enc {
	case inBase64:
		d.out = d.ended(d.out[:0])
	case inQuoted:
		d.out = unquote(d.out[:0], d.carry)
		d.carry = d.carry[:0]
	}
	d.flush()
}

func (d *decoder) flush() {
	if len(d.out) > 0 && !d.full {
		d.full = !d.to.data(d.out)
	}
	d.out = d.out[:0]
}

// letters64 are the values of base64; 64 is '=', 65 is left out.
var letters64 = func() (t [256]uint8) {
	for i := range t {
		t[i] = 65
	}
	for i := range 64 {
		t["ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[i]] = uint8(i)
	}
	t['='] = 64
	return t
}()

func (d *decoder) base64(p []byte) {
	out := d.out[:0]
	for i := 0; i < len(p); {
		if d.n == 0 {
			for i+4 <= len(p) {
				a, b, c, e := letters64[p[i]], letters64[p[i+1]], letters64[p[i+2]], letters64[p[i+3]]
				if a|b|c|e > 63 {
					break
				}
				v := uint32(a)<<18 | uint32(b)<<12 | uint32(c)<<6 | uint32(e)
				out = append(out, byte(v>>16), byte(v>>8), byte(v))
				i += 4
			}
			if i >= len(p) {
				break
			}
		}
		switch v := letters64[p[i]]; {
		case v < 64:
			d.bits = d.bits<<6 | uint32(v)
			if d.n++; d.n == 4 {
				out = append(out, byte(d.bits>>16), byte(d.bits>>8), byte(d.bits))
				d.bits, d.n = 0, 0
			}
		case v == 64: // some put several pieces behind each other, each with its end
			out = d.ended(out)
		}
		i++
	}
	d.out = out
	d.flush()
}

// ended gives the bytes of a group that is short.
func (d *decoder) ended(out []byte) []byte {
	switch d.n {
	case 2:
		out = append(out, byte(d.bits>>4))
	case 3:
		out = append(out, byte(d.bits>>10), byte(d.bits>>2))
	}
	d.bits, d.n = 0, 0
	return out
}

const maxQuotedLine = 4 << 10 // RFC 2045 allows 76

func (d *decoder) quoted(p []byte) {
	d.out = d.out[:0]
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n') + 1
		if i == 0 {
			if len(d.carry)+len(p) > maxQuotedLine {
				d.long(p)
			} else {
				d.carry = append(d.carry, p...)
			}
			break
		}
		line := p[:i]
		if len(d.carry) > 0 {
			d.carry = append(d.carry, line...)
			line = d.carry
		}
		d.out = unquote(d.out, line)
		d.carry = d.carry[:0]
		p = p[i:]
	}
	d.flush()
}

// long decodes the begin of a line that has no end in sight, but for what may be
// half an escape.
func (d *decoder) long(p []byte) {
	d.carry = append(d.carry, p...)
	n := len(d.carry)
	if i := bytes.LastIndexByte(d.carry[n-min(n, 3):], '='); i >= 0 {
		n += i - min(n, 3)
	} else if d.carry[n-1] == '\r' {
		n--
	}
	d.out = unescape(d.out, d.carry[:n])
	d.carry = d.carry[:copy(d.carry, d.carry[n:])]
}

// unquote decodes one line. RFC 2045 section 6.7.
func unquote(out, line []byte) []byte {
	body := bytes.TrimRight(line, " \t\r\n")
	eol := line[len(line):]
	switch {
	case bytes.HasSuffix(line, crlf):
		eol = crlf
	case bytes.HasSuffix(line, crlf[1:]):
		eol = crlf[1:]
	}
	if len(body) > 0 && body[len(body)-1] == '=' {
		return unescape(out, body[:len(body)-1])
	}
	return append(unescape(out, body), eol...)
}

func unescape(out, s []byte) []byte {
	for {
		i := bytes.IndexByte(s, '=')
		if i < 0 {
			return append(out, s...)
		}
		out = append(out, s[:i]...)
		s = s[i:]
		if len(s) >= 3 && nibble(s[1]) < 16 && nibble(s[2]) < 16 {
			out = append(out, nibble(s[1])<<4|nibble(s[2]))
			s = s[3:]
			continue
		}
		out = append(out, '=')
		s = s[1:]
	}
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 16
}
