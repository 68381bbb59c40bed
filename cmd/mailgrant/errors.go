package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
)

// The exit status of every command.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitPerson      = 4
	exitRefused     = 5
	exitConflict    = 6
	exitInternal    = 70
	exitTemporary   = 75 // EX_TEMPFAIL of sysexits.h
	exitInterrupted = 130
)

// exitMeaning is the table in the help, in the order of the numbers.
var exitMeaning = []struct {
	status int
	text   string
}{
	{exitOK, "done"},
	{exitFailed, "it failed: a step of a check, a submission that was refused"},
	{exitUsage, "the command or what it was given is wrong"},
	{exitNotFound, "there is no such thing"},
	{exitPerson, "a person must act first: a consent, a setting"},
	{exitRefused, "the key is wrong, or may not do this"},
	{exitConflict, "it clashes with what is there"},
	{exitInternal, "a mistake inside mailgrant"},
	{exitTemporary, "not now: try again later"},
	{exitInterrupted, "interrupted"},
}

// exitOf maps codes to exit statuses.
var exitOf = map[mailgrant.Code]int{
	mailgrant.Invalid:      exitUsage,
	mailgrant.Unauthorized: exitRefused,
	mailgrant.Forbidden:    exitRefused,
	mailgrant.NotFound:     exitNotFound,
	mailgrant.Conflict:     exitConflict,
	mailgrant.TooLarge:     exitFailed,
	mailgrant.Limited:      exitTemporary,
	mailgrant.NoRoute:      exitPerson,
	mailgrant.Lapsed:       exitPerson,
	mailgrant.Misset:       exitPerson,
	mailgrant.Unavailable:  exitTemporary,
	mailgrant.NoSpace:      exitTemporary,
	mailgrant.Internal:     exitInternal,
}

// exitHelp is the table in words.
func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit status:\n")
	for _, e := range exitMeaning {
		fmt.Fprintf(&b, "  %3d  %s\n", e.status, e.text)
	}
	return strings.TrimRight(b.String(), "\n")
}

// errFailed ends a command whose output has already said what failed.
var errFailed = errors.New("failed")

// usage makes an error of how a command was written.
func usage(cmd *cobra.Command, err error) error {
	text, _, _ := strings.Cut(err.Error(), ": strconv.") // nobody asked how it was read
	return mailgrant.Errorf(mailgrant.Invalid, nil, "%s", text).Fix("see: %s --help", cmd.CommandPath())
}

// wrong is a usage error in our own words.
func wrong(cmd *cobra.Command, format string, args ...any) error {
	return usage(cmd, fmt.Errorf(format, args...))
}

// unknown says that a group has no such command, and which come near.
func unknown(cmd *cobra.Command, name string) error {
	e := mailgrant.Errorf(mailgrant.Invalid, nil, "%s has no command %q", cmd.CommandPath(), name)
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return e.Fix("did you mean: %s %s", cmd.CommandPath(), near[0])
	}
	return e.Fix("see: %s --help", cmd.CommandPath())
}

// count bounds the arguments of a command, at most < 0 for any number.
func count(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return mailgrant.Errorf(mailgrant.Invalid, nil, "something is missing after %s", cmd.CommandPath()).Fix("write it as: %s", cmd.UseLine())
		case most >= 0 && len(args) > most:
			return mailgrant.Errorf(mailgrant.Invalid, nil, "%q is too much", args[most]).Fix("write it as: %s", cmd.UseLine())
		}
		return nil
	}
}

// whoWords says to a person who can mend a failure.
var whoWords = map[mailgrant.Who]string{
	mailgrant.WhoOperator:     "you, or whoever runs mailgrant",
	mailgrant.WhoTenantAdmin:  "an administrator of the mail domain",
	mailgrant.WhoMailboxOwner: "the owner of the mailbox",
	mailgrant.WhoProvider:     "the mail provider",
	mailgrant.WhoNobody:       "nobody: it passes by itself",
}

// report writes an error for people, or as one line of JSON, and gives the
// exit status.
func report(ctx context.Context, err error, w io.Writer, asJSON bool) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFailed):
		return exitFailed
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return exitInterrupted
	}
	e := mailgrant.AsError(err)
	if e.Code == mailgrant.Internal && e.Cause != nil {
		e.Message += ": " + e.Cause.Error() // there is no log here to look into
	}
	if asJSON {
		json.NewEncoder(w).Encode(failure{Code: e.Code, Message: e.Message, Remedy: e.Remedy, Field: e.Field, Finding: e.Finding})
		return exitOf[e.Code]
	}
	fmt.Fprintf(w, "mailgrant: %s\n", strings.TrimPrefix(e.Message, "mailgrant "))
	if e.Remedy != "" {
		fmt.Fprintf(w, "Fix: %s\n", e.Remedy)
	}
	if e.Finding != nil && whoWords[e.Finding.Who] != "" {
		fmt.Fprintf(w, "Who: %s\n", whoWords[e.Finding.Who])
	}
	if e.Finding != nil && e.Finding.Raw != "" {
		fmt.Fprintf(w, "Said: %s\n", oneLine(e.Finding.Raw))
	}
	return exitOf[e.Code]
}

// failure is an error for programs.
type failure struct {
	Code    mailgrant.Code     `json:"code"`
	Message string             `json:"message"`
	Remedy  string             `json:"remedy,omitempty"`
	Field   string             `json:"field,omitempty"`
	Finding *mailgrant.Finding `json:"finding,omitempty"`
}
