package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// built is what is known of this binary.
type built struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func buildInfo() built {
	b := built{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// version is that of this binary, in a word.
func version() string { return buildInfo().Version }

func newVersion(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which mailgrant this is", Args: count(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := buildInfo()
			return c.show(cmd, b, func(p *printer) {
				line := fmt.Sprintf("mailgrant %s %s %s", b.Version, b.Go, b.Platform)
				if b.Revision != "" {
					line += " " + b.Revision
				}
				p.line("%s", line)
			})
		},
	}
}
