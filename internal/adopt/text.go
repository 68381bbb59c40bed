package adopt

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/mailgrant/mailgrant"
)

// text are the lines of a file, whatever its encoding and its ends of lines.
func (r *reading) text(data []byte) ([]string, error) {
	if len(data) > MaxBytes {
		return nil, mailgrant.Errorf(mailgrant.TooLarge, nil, "the file is larger than %d KiB", MaxBytes>>10).
			Fix("look whether it is the right one: files of settings are much smaller")
	}
	s := r.decode(data)
	if strings.TrimSpace(s) == "" {
		return nil, mailgrant.Errorf(mailgrant.Invalid, nil, "the file is empty").Fix("look whether it is the right one")
	}
	if strings.ContainsRune(s, 0) {
		return nil, mailgrant.Errorf(mailgrant.Invalid, nil, "the file is not text: it holds a NUL byte").Fix("look whether it is the right one")
	}
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
	return strings.Split(s, "\n"), nil
}

func (r *reading) decode(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		data = data[3:]
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		return wide(data[2:], binary.LittleEndian)
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		return wide(data[2:], binary.BigEndian)
	}
	if utf8.Valid(data) {
		return string(data)
	}
	line := 1
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && n == 1 {
			break
		}
		if c == '\n' {
			line++
		}
		i += n
	}
	r.strange(line, "encoding", "the file is not UTF-8, and was read as Latin-1: look at names with other letters than a to z")
	runes := make([]rune, len(data))
	for i, b := range data {
		runes[i] = rune(b)
	}
	return string(runes)
}

func wide(data []byte, order binary.ByteOrder) string {
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	return string(utf16.Decode(units))
}
