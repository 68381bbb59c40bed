// Package config reads the settings: defaults, then the file, then the
// environment, then flags. Only config, node and cmd know Config; every part is
// given plain values.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/mailgrant/mailgrant"
)

// Config is all that can be set. In the file the names are those of the tags; in
// the environment MAILGRANT_ and the name in capitals, levels joined by two
// underscores: MAILGRANT_LIMITS__RECIPIENTS=100.
type Config struct {
	// Dir is where mailgrant keeps its files: database, master key, socket,
	// generated certificate.
	Dir string `koanf:"dir"`

	// Database is a postgres:// address, or the path of the SQLite file. Empty:
	// mailgrant.db in Dir.
	Database string `koanf:"database"`

	// PublicURL is how browsers reach mailgrant; redirect URIs and links begin
	// with it. https, or http on the loopback.
	PublicURL string `koanf:"public_url"`

	// Listen are the doors: https://:443, http+insecure://127.0.0.1:8025,
	// submissions://:465, submission://:587, submission+insecure://127.0.0.1:2525.
	Listen []string `koanf:"listen"`

	// Hostname names this installation in greetings, Received fields and
	// Message-IDs. Empty: the system's name.
	Hostname string `koanf:"hostname"`

	MasterKey MasterKey `koanf:"master_key"`
	TLS       TLS       `koanf:"tls"`
	Egress    Egress    `koanf:"egress"`
	Log       Log       `koanf:"log"`
	Limits    Limits    `koanf:"limits"`
	Keep      Keep      `koanf:"keep"`
	Notices   Notices   `koanf:"notices"`

	// TrustedProxies may tell where a request comes from (X-Forwarded-For):
	// addresses or CIDRs. Empty: nobody.
	TrustedProxies []string `koanf:"trusted_proxies"`
}

// MasterKey says where the key that wraps all others comes from. One of them.
type MasterKey struct {
	// File holds it in base64, mode 0600. Empty: master.key in Dir, made at the
	// first start.
	File string `koanf:"file"`

	// Env names an environment variable that holds it.
	Env string `koanf:"env"`

	// Command wraps and unwraps instead: a key management service.
	Command []string `koanf:"command"`
}

// TLS is the certificate of all doors.
type TLS struct {
	// Cert and Key are PEM files, read again when they change. Empty: one is made
	// for the local network.
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
}

// Egress rules what mailgrant itself connects to.
type Egress struct {
	// Allow are host:port entries that may lie on inner networks.
	Allow []string `koanf:"allow"`

	// CAFile is trusted besides the system's roots.
	CAFile string `koanf:"ca_file"`

	// Proxy is an HTTP proxy for all requests to providers: http://host:port.
	Proxy string `koanf:"proxy"`
}

// Log says what is logged.
type Log struct {
	Level  string `koanf:"level"`  // debug, info, warn, error
	Format string `koanf:"format"` // json, text
}

// Limits bound what callers may ask for.
type Limits struct {
	MessageBytes int64         `koanf:"message_bytes"`
	Recipients   int           `koanf:"recipients"`
	Life         time.Duration `koanf:"life"` // of a submission
}

// Keep says how long what is over is kept; 0 keeps for ever.
type Keep struct {
	Bodies      time.Duration `koanf:"bodies"`
	Submissions time.Duration `koanf:"submissions"`
	Events      time.Duration `koanf:"events"`
	Arrivals    time.Duration `koanf:"arrivals"` // with their bodies, where a mailbox says nothing else
}

// Notices are told to people.
type Notices struct {
	// To is an address that hears of held mailboxes, by another mailbox than the
	// held one.
	To string `koanf:"to"`
}

// Default is what holds where nothing is set.
func Default() Config {
	return Config{
		Dir:       "mailgrant-data",
		PublicURL: "http://localhost:8025",
		Listen:    []string{"http+insecure://127.0.0.1:8025", "submissions://:465", "submission://:587"},
		Log:       Log{Level: "info", Format: "json"},
		Limits:    Limits{MessageBytes: 35 << 20, Recipients: 500, Life: 5 * 24 * time.Hour},
		Keep:      Keep{Bodies: 7 * 24 * time.Hour, Submissions: 90 * 24 * time.Hour, Events: 90 * 24 * time.Hour, Arrivals: 30 * 24 * time.Hour},
	}
}

// Load reads the settings; path may be "" for none. Unknown names are errors:
// a misspelt setting must not be a silent default.
func Load(path string) (Config, error) {
	c := Default()
	k := koanf.New(".")
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return c, misset(err, "there is no settings file %s", path).Fix("write one: mailgrant config template > %s", path)
			}
			return c, misset(err, "the settings file %s is not YAML: %v", path, err).Fix("mend the line it names")
		}
	}
	if err := k.Load(env.Provider(".", env.Opt{Prefix: envPrefix, TransformFunc: fromEnv}), nil); err != nil {
		return c, misset(err, "the environment cannot be read").Fix("look at the variables that begin with %s", envPrefix)
	}
	if unknown := unknownNames(k.Keys()); len(unknown) > 0 {
		return c, noSetting(path, unknown)
	}
	if err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{Tag: "koanf"}); err != nil {
		return c, misset(err, "a setting has a value of the wrong kind: %v", err).Fix("compare it with: mailgrant config template")
	}
	if path != "" { // paths in the file are relative to it
		base := filepath.Dir(path)
		for _, p := range []*string{&c.Dir, &c.MasterKey.File, &c.TLS.Cert, &c.TLS.Key, &c.Egress.CAFile} {
			if *p != "" && !filepath.IsAbs(*p) && k.Exists("dir") {
				*p = filepath.Join(base, *p)
			}
		}
	}
	return c, c.Check()
}

const envPrefix = "MAILGRANT_"

// notSettings are variables of the command line client.
var notSettings = []string{"MAILGRANT_URL", "MAILGRANT_KEY", "MAILGRANT_CONFIG", "MAILGRANT_MASTER_KEY", "MAILGRANT_ORGANIZATION"}

func fromEnv(name, value string) (string, any) {
	if slices.Contains(notSettings, name) {
		return "", nil
	}
	key := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, envPrefix)), "__", ".")
	if strings.Contains(value, ",") {
		return key, strings.Split(value, ",")
	}
	return key, value
}

func misset(err error, format string, args ...any) *mailgrant.Error {
	return mailgrant.Errorf(mailgrant.Misset, err, format, args...)
}

// Names are all settings, as the file writes them.
func Names() []string { return names(reflect.TypeFor[Config](), "") }

func names(t reflect.Type, prefix string) (out []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + f.Tag.Get("koanf")
		if f.Type.Kind() == reflect.Struct {
			out = append(out, names(f.Type, name+".")...)
			continue
		}
		out = append(out, name)
	}
	return out
}

func unknownNames(keys []string) (out []string) {
	known := Names()
	for _, k := range keys {
		if k != "" && !slices.Contains(known, k) {
			out = append(out, k)
		}
	}
	return out
}

// Check finds what cannot work before anything is opened.
func (c Config) Check() error {
	u, err := url.Parse(c.PublicURL)
	switch {
	case err != nil || u.Host == "":
		return misset(err, "public_url %q is not an address", c.PublicURL).Fix("write it as https://mailgrant.example.com").At("public_url")
	case u.Scheme != "https" && !(u.Scheme == "http" && Loopback(u.Hostname())):
		return misset(nil, "public_url %q is not https", c.PublicURL).Fix("use https; plain http works for localhost only").At("public_url")
	case len(c.Listen) == 0:
		return misset(nil, "no door is open").Fix("name at least one under listen").At("listen")
	case c.Limits.MessageBytes < 1<<10 || c.Limits.Recipients < 1 || c.Limits.Life < time.Minute:
		return misset(nil, "a limit is too small to work with").Fix("look at limits in: mailgrant config template").At("limits")
	}
	for _, l := range c.Listen {
		if _, err := ParseDoor(l); err != nil {
			return err
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return misset(nil, "a certificate needs its key, and a key its certificate").Fix("set both tls.cert and tls.key, or none").At("tls")
	}
	return nil
}

// A Door is one address mailgrant listens on.
type Door struct {
	Scheme   string // https, http, submissions, submission
	Insecure bool   // plain text, loopback only
	Addr     string // host:port
}

var doorPorts = map[string]string{"https": "443", "http": "8025", "submissions": "465", "submission": "587"}

// ParseDoor reads one entry of Listen.
func ParseDoor(s string) (Door, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		return Door{}, misset(err, "%q is not a door", s).Fix("write doors as https://:443 or submissions://:465").At("listen")
	}
	scheme, insecure := strings.CutSuffix(u.Scheme, "+insecure")
	port, ok := doorPorts[scheme]
	if !ok {
		return Door{}, misset(nil, "%q is not a kind of door", u.Scheme).Fix("use https, submissions or submission").At("listen")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	d := Door{Scheme: scheme, Insecure: insecure, Addr: net.JoinHostPort(u.Hostname(), port)}
	if scheme == "http" && !insecure {
		return d, misset(nil, "%s is plain text", s).Fix("use https, or http+insecure on 127.0.0.1 behind a proxy").At("listen")
	}
	if insecure && !Loopback(u.Hostname()) {
		return d, misset(nil, "%s would send keys in plain text over the network", s).Fix("plain text works on 127.0.0.1 only; use TLS").At("listen")
	}
	return d, nil
}

// Loopback says whether host is this machine itself.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// DatabasePath is the database to open.
func (c Config) DatabasePath() string {
	if c.Database == "" {
		return filepath.Join(c.Dir, "mailgrant.db")
	}
	return c.Database
}

// Socket is where the operator's commands reach the running server.
func (c Config) Socket() string { return filepath.Join(c.Dir, "mailgrant.sock") }

// Host is the name of this installation.
func (c Config) Host() string {
	if c.Hostname != "" {
		return c.Hostname
	}
	if h, err := os.Hostname(); err == nil && h != "" {
		return h
	}
	return "localhost"
}

// String is the settings as they are in force. None of them is a secret, except
// what a database address may hold.
func (c Config) String() string {
	if u, err := url.Parse(c.Database); err == nil && u.User != nil {
		if _, has := u.User.Password(); has {
			u.User = url.UserPassword(u.User.Username(), "secret")
			c.Database = strings.Replace(u.String(), ":secret@", ":[secret]@", 1)
		}
	}
	var b strings.Builder
	write(&b, reflect.ValueOf(c), "")
	return b.String()
}

func write(b *strings.Builder, v reflect.Value, indent string) {
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Tag.Get("koanf"), v.Field(i)
		switch {
		case f.Kind() == reflect.Struct:
			fmt.Fprintf(b, "%s%s:\n", indent, name)
			write(b, f, indent+"  ")
		case f.Kind() == reflect.Slice:
			fmt.Fprintf(b, "%s%s: [", indent, name)
			for j := range f.Len() {
				if j > 0 {
					b.WriteString(", ")
				}
				fmt.Fprintf(b, "%q", f.Index(j).String())
			}
			b.WriteString("]\n")
		case f.Kind() == reflect.String:
			fmt.Fprintf(b, "%s%s: %q\n", indent, name, f.String())
		default:
			fmt.Fprintf(b, "%s%s: %v\n", indent, name, f.Interface())
		}
	}
}
