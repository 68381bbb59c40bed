package main

import (
	_ "embed"
	"fmt"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant/internal/config"
)

// configTemplate is a settings file in which everything is left at its default.
//
//go:embed config.template.yaml
var configTemplate string

func newConfig(c *cli) *cobra.Command {
	return group("config", "The settings", configShow(c), configCheck(c), configShowTemplate())
}

func configShow(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the settings in force: defaults, file, environment, flags", Args: count(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			text := cfg.String()
			var v any
			if err := yaml.Unmarshal([]byte(text), &v); err != nil {
				return fmt.Errorf("read our own settings: %w", err)
			}
			return c.show(cmd, v, func(p *printer) { fmt.Fprint(p.w, text) })
		},
	}
}

// checked is what config check answers.
type checked struct {
	OK        bool     `json:"ok"`
	Dir       string   `json:"dir"`
	PublicURL string   `json:"public_url"`
	Doors     []string `json:"doors"`
}

func configCheck(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "check [FILE]", Short: "Say whether the settings can work, before anything is opened", Args: count(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				c.file = args[0]
			}
			cfg, err := c.config()
			if err != nil {
				return err
			}
			k := checked{OK: true, Dir: cfg.Dir, PublicURL: cfg.PublicURL}
			for _, l := range cfg.Listen {
				d, err := config.ParseDoor(l)
				if err != nil {
					return err
				}
				k.Doors = append(k.Doors, d.Scheme+" "+d.Addr)
			}
			return c.show(cmd, k, func(p *printer) {
				p.fields("Settings", "good", "Directory", k.Dir, "Public URL", k.PublicURL)
				for _, d := range k.Doors {
					p.line("Door %s", d)
				}
			})
		},
	}
}

func configShowTemplate() *cobra.Command {
	return &cobra.Command{
		Use: "template", Short: "Print a settings file with every setting, its meaning and its default", Args: count(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), configTemplate)
			return err
		},
	}
}
