package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
)

// given is the value of a flag that was given, and nil for one that was not.
func given[T any](cmd *cobra.Command, name string, v T) *T {
	if !cmd.Flags().Changed(name) {
		return nil
	}
	return &v
}

// listHelp belongs in the help of every flag that edits a list.
const listHelp = "; again for more, -X takes X away, none empties the list"

// edited is have after the values of a list flag: X adds, -X takes away, none
// empties. It is nil when the flag was not given.
func edited[T ~string](cmd *cobra.Command, name string, have []T, values []string) *[]T {
	if !cmd.Flags().Changed(name) {
		return nil
	}
	out := withEdits(have, values)
	return &out
}

// withEdits is have after values: X adds X, -X takes it away, none empties.
func withEdits[T ~string](have []T, values []string) []T {
	out := slices.Clone(have)
	for _, v := range values {
		gone, away := strings.CutPrefix(v, "-")
		switch {
		case v == "none":
			out = nil
		case away:
			out = slices.DeleteFunc(out, func(x T) bool { return strings.EqualFold(string(x), gone) })
		case !slices.Contains(out, T(v)):
			out = append(out, T(v))
		}
	}
	return list(out)
}

// editedMap is have after the values of a flag that sets entries: name=value sets,
// name= takes away.
func editedMap(cmd *cobra.Command, name string, have map[string]string, values []string) (*map[string]string, error) {
	if !cmd.Flags().Changed(name) {
		return nil, nil
	}
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		switch {
		case v == "none":
			clear(out)
		case !ok || key == "":
			return nil, wrong(cmd, "--%s %q is not name=value", name, v)
		case value == "":
			delete(out, key)
		default:
			out[key] = value
		}
	}
	return &out, nil
}

// moment reads a date or a time; a date alone is its beginning in UTC. A time
// to come may be written as a duration from now: 2h, 30d.
func moment(cmd *cobra.Command, flag, text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return &t, nil
		}
	}
	if d, err := duration(text); err == nil {
		t := time.Now().Add(d).UTC().Truncate(time.Second)
		return &t, nil
	}
	return nil, wrong(cmd, "--%s %q is neither a date (2027-01-31), a time (2027-01-31T08:00:00Z) nor a duration (30d)", flag, text)
}

// duration reads 90m, 36h or 30d.
func duration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		d, err := time.ParseDuration(days + "h")
		return 24 * d, err
	}
	return time.ParseDuration(text)
}

// joined is a list for people.
func joined[T ~string](v []T) string {
	s := make([]string, len(v))
	for i := range v {
		s[i] = string(v[i])
	}
	return strings.Join(s, ", ")
}

// yes is a flag for people: its name when set.
func yes(set bool, word string) string {
	if set {
		return word
	}
	return ""
}

// role reads --role; none is the role that carries only what names the mailbox.
func role(text string) mailgrant.MailboxRole {
	if text == "none" {
		return mailgrant.RoleNone
	}
	return mailgrant.MailboxRole(text)
}
