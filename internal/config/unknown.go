package config

import (
	"os"
	"strings"

	"gopkg.in/yaml.v3"
)

// noSetting refuses a name that no setting has, and says where it stands: in the
// file, or else in the environment.
func noSetting(path string, unknown []string) error {
	first, line := unknown[0], 0
	for _, name := range unknown {
		if at := lineOf(path, name); at > 0 && (line == 0 || at < line) {
			first, line = name, at
		}
	}
	if line == 0 {
		variable := envPrefix + strings.ToUpper(strings.ReplaceAll(first, ".", "__"))
		return misset(nil, "there is no setting %q, which the environment variable %s names", first, variable).
			Fix("unset it, or see the settings that there are: mailgrant config template").At(first)
	}
	return misset(nil, "%s, line %d: there is no setting %q", path, line, first).
		Fix("correct or remove that line; the settings are listed by: mailgrant config template").At(first)
}

// lineOf is where a setting stands in the file; 0 when it does not.
func lineOf(path, name string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	var doc yaml.Node
	if yaml.Unmarshal(b, &doc) != nil || len(doc.Content) == 0 {
		return 0
	}
	return lineIn(doc.Content[0], name)
}

func lineIn(n *yaml.Node, name string) int {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return 0
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Value == name {
			return key.Line
		}
		if rest, ok := strings.CutPrefix(name, key.Value+"."); ok {
			if line := lineIn(n.Content[i+1], rest); line > 0 {
				return line
			}
		}
	}
	return 0
}
