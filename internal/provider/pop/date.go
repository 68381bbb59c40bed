package pop

import (
	"bytes"
	"net/mail"
	"strings"
	"time"
)

// headerMax is what is looked at of a header. Section 5 of the threats.
const headerMax = 256 << 10

// received looks into a header for when the message came: the newest date of all
// Received fields and of Date. The topmost Received field is the provider's own;
// anybody may have written the others, but a wrong one can only make a message look
// younger, and a younger one is taken. It is zero where nothing can be read.
func received(header []byte, now time.Time) (newest time.Time) {
	eachField(header, func(name, value string) {
		switch {
		case strings.EqualFold(name, "Received"):
			value = value[strings.LastIndexByte(value, ';')+1:]
		case !strings.EqualFold(name, "Date"):
			return
		}
		at, err := mail.ParseDate(strings.TrimSpace(value))
		if err == nil && at.After(newest) {
			newest = at
		}
	})
	if newest.After(now) { // nobody receives mail of tomorrow
		return now
	}
	return newest
}

// eachField gives the fields of a header, unfolded, up to the empty line.
func eachField(header []byte, each func(name, value string)) {
	var name string
	var value strings.Builder
	flush := func() {
		if name != "" {
			each(name, value.String())
		}
		name = ""
		value.Reset()
	}
	for len(header) > 0 {
		line, rest, _ := bytes.Cut(header, []byte("\n"))
		header = rest
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			value.Write(line)
			continue
		}
		flush()
		n, v, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		name = string(bytes.TrimRight(n, " \t"))
		value.Write(v)
	}
	flush()
}
