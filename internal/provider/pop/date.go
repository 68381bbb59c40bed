package pop

import (
	"bytes"
	"net/mail"
	"strings"
	"time"
)

// headerMax is what is looked at of a header. Section 5 of the threats.
const headerMax = 256 << 10

// dates looks into a header for when the message came: arrived is what the
// topmost Received field says, which is the provider's own; newest is the newest
// date of all Received fields and of Date. Anybody may have written the lower
// ones, but a wrong one can only make a message look younger, and a younger one
// is taken. Both are zero where nothing can be read.
func dates(header []byte) (arrived, newest time.Time) {
	first := true
	eachField(header, func(name, value string) {
		received := strings.EqualFold(name, "Received")
		if !received && !strings.EqualFold(name, "Date") {
			return
		}
		if received {
			value = value[strings.LastIndexByte(value, ';')+1:]
		}
		at, err := mail.ParseDate(strings.TrimSpace(value))
		if err != nil {
			at = time.Time{}
		}
		if received && first {
			arrived, first = at, false
		}
		if at.After(newest) {
			newest = at
		}
	})
	return arrived, newest
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
