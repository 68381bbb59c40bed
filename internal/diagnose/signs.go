package diagnose

import (
	"embed"
	"io/fs"
	"strings"
	"sync"
	"unicode/utf8"
)

//go:embed signs/*.txt
var signFiles embed.FS

// A sign is a phrase that tells of a cause. Its parts must follow one another
// with at most gap bytes between.
//
// In signs/*.txt a line without indent names the cause or question; the indented
// lines below are its signs. "^7 " gives a rank other than 5. " * " separates
// parts. " | smtp imap" keeps a sign to some protocols (an unknown protocol
// passes); " | @host" asks for that word in the facts about host and provider.
// "url " lets a sign count in an address. "=" in front of the phrase keeps it to
// whole words; a short phrase must begin a word in any case.
type sign struct {
	cause  string
	rank   int
	parts  []string
	bounds []where // of the first part
	size   int
	only   []string
	host   string
	url    bool
	start  bool // must begin a word
	end    bool // and end one
}

// gap is how far apart the parts of a sign may stand, squeezed.
const gap = 240

// shortSign is the length up to which a sign could be a piece of another word:
// "rdns" stands in "check your DNS" too.
const shortSign = 12

// keySize is how many bytes of a sign stand in the index.
const keySize = 4

type signIndex struct {
	table map[uint32][]int32
	first [1 << 13]uint64 // a bit for each hash of a key: most windows end here
	signs []sign
}

var loadSigns = sync.OnceValue(func() *signIndex {
	x := &signIndex{table: map[uint32][]int32{}}
	files, _ := fs.ReadDir(signFiles, "signs")
	for _, f := range files {
		b, _ := signFiles.ReadFile("signs/" + f.Name())
		x.read(string(b))
	}
	return x
})

// read takes in one file of signs.
func (x *signIndex) read(file string) {
	cause := ""
	for line := range strings.Lines(file) {
		line = strings.TrimRight(line, " \n")
		switch {
		case line == "" || line[0] == '#':
		case line[0] != ' ':
			cause = line
		default:
			x.add(parseSign(cause, strings.TrimLeft(line, " ")))
		}
	}
}

func parseSign(cause, line string) sign {
	s := sign{cause: cause, rank: 5}
	if line[0] == '^' {
		s.rank = int(line[1] - '0')
		line = line[3:]
	}
	if rest, ok := strings.CutPrefix(line, "url "); ok {
		s.url, line = true, rest
	}
	if rest, ok := strings.CutPrefix(line, "="); ok {
		s.start, s.end, line = true, true, rest
	}
	line, conditions, _ := strings.Cut(line, " | ")
	for _, c := range strings.Fields(conditions) {
		if host, ok := strings.CutPrefix(c, "@"); ok {
			s.host = host
		} else {
			s.only = append(s.only, c)
		}
	}
	for _, part := range strings.Split(line, " * ") {
		p, bounds := squeeze(part)
		if s.parts == nil {
			s.bounds = bounds
		}
		s.parts = append(s.parts, p)
		s.size += len(p)
	}
	s.start = s.start || len(s.parts[0]) <= shortSign && s.parts[0][0] < utf8.RuneSelf
	return s
}

func (x *signIndex) add(s sign) {
	if len(s.parts[0]) < keySize {
		panic("sign too short: " + s.cause + ": " + s.parts[0])
	}
	k := key(s.parts[0])
	x.table[k] = append(x.table[k], int32(len(x.signs)))
	h := k * 2654435761 >> 13
	x.first[h>>6] |= 1 << (h & 63)
	x.signs = append(x.signs, s)
}

func key(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

// matchSigns looks at every place of the squeezed text once.
func (e *evidence) matchSigns() {
	x := loadSigns()
	w := e.words
	for i := 0; i+keySize <= len(w); i++ {
		k := key(w[i:])
		h := k * 2654435761 >> 13
		if x.first[h>>6]&(1<<(h&63)) == 0 {
			continue
		}
		for _, n := range x.table[k] {
			e.matchSign(&x.signs[n], i)
		}
	}
}

func (e *evidence) matchSign(s *sign, at int) {
	rest := e.words[at:]
	if !strings.HasPrefix(rest, s.parts[0]) {
		e.matchCut(s, at)
		return
	}
	if s.start && !e.marks[at].is(wordStart) {
		return
	}
	rest = rest[len(s.parts[0]):]
	for _, p := range s.parts[1:] {
		i := strings.Index(rest[:min(len(rest), gap+len(p))], p)
		if i < 0 {
			return
		}
		rest = rest[i+len(p):]
	}
	if s.end && len(rest) > 0 && !e.marks[len(e.words)-len(rest)].is(wordStart) {
		return
	}
	if !e.allows(s) {
		return
	}
	rank := s.rank
	if e.marks[at].is(inAddr) && !s.url {
		rank = min(rank, 1)
	}
	e.hit(s.cause, rank, s.size, at)
}

// matchCut finds a sign that the end of the text has cut in the middle of a word,
// behind its larger part. It counts two ranks less.
func (e *evidence) matchCut(s *sign, at int) {
	n := len(e.words) - at
	if n < 12 || n >= s.size || n*10 < s.size*6 || len(s.parts) > 1 || s.end || !strings.HasPrefix(s.parts[0], e.words[at:]) {
		return
	}
	if !s.bounds[n].is(wordStart) && e.marks[at].is(wordStart) && !e.marks[at].is(inAddr) && e.allows(s) {
		e.hit(s.cause, max(s.rank-2, 1), n, at)
	}
}

// allows checks the conditions behind a sign.
func (e *evidence) allows(s *sign) bool {
	if s.host != "" && !e.facts.service(s.host) {
		return false
	}
	if len(s.only) == 0 || e.failure.Protocol == "" {
		return true
	}
	return e.is(s.only...)
}
