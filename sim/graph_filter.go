package sim

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is understood of $filter.

// filterUsers understands mail eq '...' and userPrincipalName eq '...'.
func filterUsers(filter string) (func(*User) bool, *graphError) {
	if filter == "" {
		return func(*User) bool { return true }, nil
	}
	name, value, e := equals(filter)
	if e != nil {
		return nil, e
	}
	switch strings.ToLower(name) {
	case "mail":
		return func(u *User) bool { return strings.EqualFold(u.Address, value) }, nil
	case "userprincipalname":
		return func(u *User) bool { return strings.EqualFold(u.upn(), value) }, nil
	}
	return nil, badRequest("Invalid filter clause: Could not find a property named '" + name + "'.")
}

// equals reads the one kind of filter that is understood: name eq 'value'.
func equals(filter string) (name, value string, e *graphError) {
	name, rest, ok := strings.Cut(strings.TrimSpace(filter), " ")
	op, rest, _ := strings.Cut(strings.TrimSpace(rest), " ")
	value, err := literal(rest)
	if !ok || !strings.EqualFold(op, "eq") || err != nil {
		return "", "", badRequest("Invalid filter clause: '" + filter + "'.")
	}
	return name, value, nil
}

// comparison reads one comparison of a filter: name op value.
func comparison(text string) (name, op, value string, e *graphError) {
	name, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	op, value, ok := strings.Cut(strings.TrimSpace(rest), " ")
	value, op = strings.TrimSpace(value), strings.ToLower(op)
	if strings.HasPrefix(value, "'") {
		plain, err := literal(value)
		if err != nil {
			ok = false
		}
		value = plain
	}
	if !ok || value == "" || !slices.Contains([]string{"eq", "ne", "ge", "gt", "le", "lt"}, op) {
		return "", "", "", badRequest("Invalid filter clause: '" + text + "'.")
	}
	return name, op, value, nil
}

// filterMessages understands comparisons that are joined by "and".
func filterMessages(filter string) (func(Message) bool, *graphError) {
	var all []func(Message) bool
	for part := range splitAnd(filter) {
		name, op, value, e := comparison(part)
		if e != nil {
			return nil, e
		}
		keep := messageFilter(name, op, value)
		if keep == nil {
			return nil, badRequest("Invalid filter clause: '" + part + "' cannot be compared here.")
		}
		all = append(all, keep)
	}
	return func(m Message) bool {
		for _, keep := range all {
			if !keep(m) {
				return false
			}
		}
		return true
	}, nil
}

// splitAnd cuts a filter at its "and", outside of quotes.
func splitAnd(filter string) func(func(string) bool) {
	return func(yield func(string) bool) {
		start, quoted := 0, false
		for i := range len(filter) {
			if filter[i] == '\'' {
				quoted = !quoted
			}
			if !quoted && i+5 <= len(filter) && strings.EqualFold(filter[i:i+5], " and ") {
				if !yield(filter[start:i]) {
					return
				}
				start = i + 5
			}
		}
		if strings.TrimSpace(filter[start:]) != "" || start > 0 {
			yield(filter[start:])
		}
	}
}

func messageFilter(name, op, value string) func(Message) bool {
	switch strings.ToLower(name) {
	case "internetmessageid":
		if op == "eq" {
			return func(m Message) bool { return m.MessageID == value }
		}
	case "subject":
		if op == "eq" {
			return func(m Message) bool { return strings.EqualFold(m.Subject, value) }
		}
	case "isread":
		if want, err := strconv.ParseBool(value); err == nil && (op == "eq" || op == "ne") {
			return func(m Message) bool { return m.has(FlagSeen) == (want == (op == "eq")) }
		}
	case "receiveddatetime":
		at, err := time.Parse(time.RFC3339, value)
		if err != nil || op == "eq" || op == "ne" {
			return nil
		}
		return func(m Message) bool {
			switch n := m.At.Compare(at); op {
			case "ge":
				return n >= 0
			case "gt":
				return n > 0
			case "le":
				return n <= 0
			default:
				return n < 0
			}
		}
	}
	return nil
}
