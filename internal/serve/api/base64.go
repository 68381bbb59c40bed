package api

import (
	"encoding/base64"

	"github.com/mailgrant/mailgrant"
)

var strict64 = base64.StdEncoding.Strict()

// base64 reads a string that holds base64 (RFC 4648 section 4) and decodes it as
// it comes: the encoded text is never held. Line breaks, as other programs like
// to put them in, are left out.
func (j *jsonReader) base64(field string) ([]byte, error) {
	if c := j.peek(); c != '"' {
		if c == 0 && j.eof {
			return nil, j.short()
		}
		return nil, badBase64(field)
	}
	j.pos++
	d := decoder{start: len(j.slab)}
	for {
		run, stopped, err := j.run()
		if err != nil {
			return nil, err
		}
		if !d.take(j, run) {
			return nil, badBase64(field)
		}
		if !stopped {
			continue
		}
		if j.buf[j.pos] == '"' {
			j.pos++
			break
		}
		var one [4]byte
		c, err := j.escape(one[:0]) // PHP writes \/ for /
		if err != nil {
			return nil, err
		}
		if len(c) == 1 && (c[0] == '\n' || c[0] == '\r') {
			continue
		}
		if !d.take(j, c) {
			return nil, badBase64(field)
		}
	}
	if d.n != 0 {
		return nil, badBase64(field)
	}
	return j.slab[d.start:len(j.slab):len(j.slab)], nil
}

func badBase64(field string) error {
	return mailgrant.Errorf(mailgrant.Invalid, errJSON, "%s is not base64", field).
		Fix("encode the bytes of the file in standard base64 with padding (RFC 4648 section 4)").At(field)
}

// A decoder keeps the letters that do not make a group of four yet.
type decoder struct {
	start  int
	carry  [4]byte
	n      int
	padded bool
}

func (d *decoder) take(j *jsonReader, p []byte) bool {
	if len(p) > 0 && d.padded {
		return false
	}
	if d.n > 0 {
		k := copy(d.carry[d.n:], p)
		d.n += k
		p = p[k:]
		if d.n < 4 {
			return true
		}
		d.n = 0
		if !d.decode(j, d.carry[:]) || len(p) > 0 && d.padded {
			return false
		}
	}
	whole := len(p) / 4 * 4
	d.n = copy(d.carry[:], p[whole:])
	if !d.decode(j, p[:whole]) {
		return false
	}
	return d.n == 0 || !d.padded
}

func (d *decoder) decode(j *jsonReader, groups []byte) bool {
	if len(groups) == 0 {
		return true
	}
	d.padded = groups[len(groups)-1] == '='
	need := strict64.DecodedLen(len(groups))
	if cap(j.slab)-len(j.slab) < need {
		d.grow(j, need)
	}
	at := len(j.slab)
	n, err := strict64.Decode(j.slab[at:at+need], groups)
	j.slab = j.slab[:at+n]
	return err == nil
}

// grow makes room. Where the length of the body is known, once is enough: what
// is left of it bounds all that can still be decoded.
func (d *decoder) grow(j *jsonReader, need int) {
	size := 2 * (len(j.slab) - d.start + need)
	if j.left != nil {
		if left := j.left(); left >= 0 {
			size = len(j.slab) - d.start + need + strict64.DecodedLen(int(left)+j.end-j.pos+4)
		}
	}
	bigger := make([]byte, len(j.slab)-d.start, size)
	copy(bigger, j.slab[d.start:])
	j.slab, d.start = bigger, 0
}
