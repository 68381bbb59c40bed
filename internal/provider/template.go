package provider

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant"
)

//go:embed templates/*.yaml
var templateFiles embed.FS

// A Template is what is known of a provider before anybody registered there.
type Template struct {
	ID       string
	Name     string
	Register string   // how a client is come by
	Clouds   []string // kinds of one provider: national clouds, data centres; nil = one
	Domains  []string // of addresses that can only be here
	MX       []string // ends of the names in its customers' MX records
	Notes    []Note
	Settings Settings // of its first cloud, with {…} where a registration's values go

	clouds map[string]yaml.Node
}

// A Note says where a template's facts come from: they rot.
type Note struct {
	Date   string `yaml:"date"`
	Source string `yaml:"source"`
	Text   string `yaml:"text"`
}

// file is a template as it is written.
type file struct {
	ID       string    `yaml:"id"`
	Name     string    `yaml:"name"`
	Base     string    `yaml:"base"` // a template to begin with
	Register string    `yaml:"register"`
	Domains  []string  `yaml:"domains"`
	MX       []string  `yaml:"mx"`
	Settings yaml.Node `yaml:"settings"`
	Clouds   yaml.Node `yaml:"clouds"`
	Notes    []Note    `yaml:"notes"`
}

// readers holds every template behind its own door: it is parsed when it is first
// asked for, so that a start costs nothing.
var readers = sync.OnceValue(func() map[string]func() Template {
	m := map[string]func() Template{}
	files, _ := fs.ReadDir(templateFiles, "templates")
	for _, f := range files {
		id := strings.TrimSuffix(f.Name(), ".yaml")
		m[id] = sync.OnceValue(func() Template { return readTemplate(id) })
	}
	return m
})

// readTemplate parses one file. The files are part of the program and proven by
// its tests, so an unreadable one cannot happen.
func readTemplate(id string) Template {
	b, err := templateFiles.ReadFile("templates/" + id + ".yaml")
	if err != nil {
		panic(err)
	}
	var f file
	if err := yaml.Unmarshal(b, &f); err != nil {
		panic("templates/" + id + ".yaml: " + err.Error())
	}
	var t Template
	if f.Base != "" {
		t = readTemplate(f.Base)
		t.Clouds, t.clouds = nil, nil
	}
	t.ID, t.Name, t.Register, t.Domains, t.MX, t.Notes = f.ID, f.Name, f.Register, f.Domains, f.MX, f.Notes
	if err := f.Settings.Decode(&t.Settings); err != nil {
		panic("templates/" + id + ".yaml: " + err.Error())
	}
	t.Settings.Template, t.Settings.Name = f.ID, f.Name
	for i := 0; i+1 < len(f.Clouds.Content); i += 2 { // in the order of the file
		if t.clouds == nil {
			t.clouds = map[string]yaml.Node{}
		}
		name := f.Clouds.Content[i].Value
		t.Clouds, t.clouds[name] = append(t.Clouds, name), *f.Clouds.Content[i+1]
	}
	t.Settings.Limits = t.Settings.LimitValues.limits()
	return t
}

// Lookup finds a template by its id.
func Lookup(id string) (Template, bool) {
	read, ok := readers()[id]
	if !ok {
		return Template{}, false
	}
	return read(), true
}

// order is how people should see the templates.
var order = []string{"microsoft365", "google", "microsoft-personal", "generic"}

// Templates are all there are: the usual ones first, then by name.
func Templates() []Template {
	ids := slices.Clone(order)
	for _, id := range sortedKeys(readers()) {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	list := make([]Template, 0, len(ids))
	for _, id := range ids {
		t, _ := Lookup(id)
		list = append(list, t)
	}
	return list
}

// Fields are the names by which a registration may override the template, in
// their order; parts of addresses come first.
func (t Template) Fields() []string {
	names := sortedKeys(t.Settings.Vars)
	for _, f := range settingsFields() {
		if f != "vars" {
			names = append(names, f)
		}
	}
	return names
}

// in is a copy of the template's settings for a cloud.
func (t Template) in(cloud string) (Settings, error) {
	s := t.Settings.clone()
	if cloud == "" && len(t.Clouds) > 0 {
		cloud = t.Clouds[0]
	}
	if cloud != "" {
		node, ok := t.clouds[cloud]
		if !ok {
			return s, mailgrant.Errorf(mailgrant.Invalid, nil, "%s has no cloud %q", t.Name, cloud).
				Fix("use %s", either(t.Clouds)).At("cloud")
		}
		if err := node.Decode(&s); err != nil {
			panic("templates/" + t.ID + ".yaml: " + err.Error())
		}
	}
	s.Cloud = cloud
	return s, nil
}

func either(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
