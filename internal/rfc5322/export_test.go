package rfc5322

import "io"

// Work reads a message and says how many bytes were looked at for it.
func Work(r io.Reader) (p Parsed, work int64, err error) { return read(r) }

// ParseDate is how a date is read.
var ParseDate = parseDate
