package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mailgrant/mailgrant"
)

// A printer writes for people.
type printer struct{ w io.Writer }

func (p *printer) line(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

// table writes rows under a head, in columns.
func (p *printer) table(head []string, rows [][]string) {
	w := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, r := range rows {
		for i, v := range r {
			r[i] = oneLine(v)
			if v == "" {
				r[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	w.Flush()
}

// fields writes names and values, in two columns; empty values are left out.
func (p *printer) fields(pairs ...string) {
	w := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], oneLine(pairs[i+1]))
		}
	}
	w.Flush()
}

// oneLine keeps what others wrote from moving the cursor or faking lines.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s)
}

// show answers with v: as JSON, or by human for people.
func (c *cli) show(cmd *cobra.Command, v any, human func(*printer)) error {
	if c.json {
		return writeJSON(cmd.OutOrStdout(), v, true)
	}
	human(&printer{cmd.OutOrStdout()})
	return nil
}

// each answers with one more part of a stream: a line of JSON, or by human.
func (c *cli) each(cmd *cobra.Command, v any, human func(*printer)) error {
	if c.json {
		return writeJSON(cmd.OutOrStdout(), v, false)
	}
	human(&printer{cmd.OutOrStdout()})
	return nil
}

func writeJSON(w io.Writer, v any, indent bool) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if indent {
		e.SetIndent("", "  ")
	}
	return e.Encode(v)
}

// list is v with no null for an empty list.
func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

// date is a moment for people, in the time of this machine.
func date(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// isTerminal says whether v, a reader or writer, is a screen or keyboard.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// outcome is what a command without another answer did.
type outcome struct {
	ID     string `json:"id"`
	Result string `json:"result"` // deleted, revoked, resumed, …
}

// done says that something happened to one thing.
func (c *cli) done(cmd *cobra.Command, id mailgrant.ID, result string) error {
	return c.show(cmd, outcome{string(id), result}, func(p *printer) { p.line("%s %s", id, result) })
}

// finding writes what failed and how it is mended.
func (p *printer) finding(f *mailgrant.Finding, indent string) {
	if f == nil {
		return
	}
	if f.Sentence != "" {
		p.line("%s%s", indent, oneLine(f.Sentence))
	}
	if f.Remedy != "" {
		p.line("%sFix: %s", indent, oneLine(f.Remedy))
	}
	for i, s := range f.Steps {
		text := s.Text
		if s.Place != "" {
			text = s.Place + ": " + text
		}
		p.line("%s  %d. %s", indent, i+1, oneLine(text))
		if s.Command != "" {
			p.line("%s     $ %s", indent, oneLine(s.Command))
		}
	}
	if who := whoWords[f.Who]; who != "" {
		p.line("%sWho: %s", indent, who)
	}
	if f.Raw != "" {
		p.line("%sSaid: %s", indent, oneLine(f.Raw))
	}
}

// sorted are the keys of m in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
