package rfc5322

import (
	"bytes"
	"strings"
	"time"
)

// LeavingHeader is the header as it leaves: add in front, Bcc and Resent-Bcc and
// the envelope line of a mailbox file taken out, all else byte for byte. Each of
// add is one whole field; a missing CRLF is put to it. SM-14.
func LeavingHeader(block []byte, add ...string) []byte {
	return leaving(block, nil, add)
}

// Leaving is LeavingHeader for a whole message, or the first part of one that
// holds the whole header.
func Leaving(first []byte, add ...string) []byte {
	block := Block(first)
	return leaving(block, first[len(block):], add)
}

func leaving(block, rest []byte, add []string) []byte {
	n := len(block) + len(rest)
	for _, a := range add {
		n += len(a) + 2
	}
	out := make([]byte, 0, n)
	for _, a := range add {
		out = append(out, a...)
		if !strings.HasSuffix(a, "\r\n") {
			out = append(out, '\r', '\n')
		}
	}
	if bytes.HasPrefix(block, []byte("From ")) {
		block = block[lineLen(block):]
	}
	return append(withoutBcc(out, block), rest...)
}

// withoutBcc appends block to out, without blind recipients and the lines that
// continue them.
func withoutBcc(out, block []byte) []byte {
	kept := 0 // where the bytes begin that are not yet copied
	drop := false
	for at := 0; at < len(block); {
		n := lineLen(block[at:])
		line := block[at : at+n]
		if line[0] == '\r' || line[0] == '\n' {
			break // the empty line
		}
		if line[0] != ' ' && line[0] != '\t' {
			was := drop
			drop = blind(line)
			if drop && !was {
				out = append(out, block[kept:at]...)
			}
			if !drop && was {
				kept = at
			}
		}
		at += n
		if drop {
			kept = at
		}
	}
	return append(out, block[kept:]...)
}

func lineLen(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	return len(b)
}

// blind says whether a line begins a field of blind recipients.
func blind(line []byte) bool {
	switch line[0] {
	case 'B', 'b', 'R', 'r':
	default:
		return false
	}
	i := bytes.IndexByte(line, ':')
	if i < 0 {
		return false
	}
	name := bytes.TrimRight(line[:i], " \t")
	return bytes.EqualFold(name, []byte("Bcc")) || bytes.EqualFold(name, []byte("Resent-Bcc"))
}

// Received is the line that says where a message came in. with is "ESMTPSA" or
// "HTTPS"; id is ours, by which the record is found. Neither the client's name
// nor its address is told to the recipient. RFC 5321 section 4.4.
func Received(by, with, id string, at time.Time) string {
	return "Received: by " + by + " (mailgrant) with " + with + " id " + id + ";\r\n\t" + at.Format(time.RFC1123Z) + "\r\n"
}
