package diagnose

import (
	"embed"
	"io/fs"
	"strings"

	"github.com/mailgrant/mailgrant"
)

//go:embed refusals/*.yaml
var refusalFiles embed.FS

// refused is the family of what mailgrant itself refuses. Its entries are written
// like causes, but no text of another side is ever taken for one of them.
const refused = "R"

// byCode is the refusal that an error is when nothing closer is known of it.
var byCode = map[mailgrant.Code]string{
	mailgrant.Invalid:      "refused-request",
	mailgrant.Unauthorized: "refused-key",
	mailgrant.Forbidden:    "refused-right",
	mailgrant.NotFound:     "refused-not-found",
	mailgrant.Conflict:     "refused-conflict",
	mailgrant.TooLarge:     "refused-message-too-large",
	mailgrant.Limited:      "refused-too-much",
	mailgrant.NoRoute:      "refused-no-route",
	mailgrant.Lapsed:       "refused-consent",
	mailgrant.Misset:       "refused-setting",
	mailgrant.Unavailable:  "refused-unavailable",
	mailgrant.NoSpace:      "refused-no-space",
	mailgrant.Internal:     "refused-internal",
}

// Refusals lists what mailgrant itself refuses, by id.
func Refusals() []Cause {
	files, _ := fs.ReadDir(refusalFiles, "refusals")
	var all []Cause
	for _, f := range files {
		c, _ := Lookup(strings.TrimSuffix(f.Name(), ".yaml"))
		all = append(all, c)
	}
	return all
}

// About is the page that explains an error, as an id for Lookup: that of its
// finding, else the one it names itself, else that of its code.
func About(e *mailgrant.Error) string {
	if f := e.Finding; f != nil {
		if id, ok := strings.CutPrefix(f.Link, "errors/"); ok {
			return id
		}
		if f.Cause != "" {
			return f.Cause
		}
	}
	if e.Page != "" {
		return e.Page
	}
	if id, ok := byCode[e.Code]; ok {
		return id
	}
	return byCode[mailgrant.Internal]
}
