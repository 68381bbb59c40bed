package sim

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gopkg.in/yaml.v3"
)

// A World is a State that many may read and change at once. A change is made
// on a copy, checked, and then put in place whole: a reader sees the world
// before it or after it.
type World struct {
	mu  sync.Mutex // one change at a time
	now atomic.Pointer[view]
}

// A view is a State that does not change any more, with its indexes.
type view struct {
	*State
	tenants   map[string]*Tenant // by id and domain
	users     map[string]inTenant[User]
	mailboxes map[string]inTenant[Mailbox]
	apps      map[string]inTenant[App]
	seal      []byte
}

type inTenant[T any] struct {
	tenant *Tenant
	item   *T
}

// NewWorld makes a world of s. It says what is wrong with s, if anything.
func NewWorld(s State) (*World, error) {
	w := new(World)
	return w, w.Replace(s)
}

// LoadWorld reads a world file, YAML or JSON. An unknown field is an error.
func LoadWorld(r io.Reader) (*World, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read world: %w", err)
	}
	s, err := parseState(text)
	if err != nil {
		return nil, err
	}
	return NewWorld(s)
}

func parseState(text []byte) (State, error) {
	var s State
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return s, fmt.Errorf("world: %w", err)
	}
	asJSON, err := json.Marshal(tree)
	if err != nil {
		return s, fmt.Errorf("world: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(asJSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, fmt.Errorf("world: %w", err)
	}
	return s, nil
}

// Write writes the world as YAML that LoadWorld reads again.
func (w *World) Write(to io.Writer) error {
	asJSON, err := json.Marshal(w.now.Load().State)
	if err != nil {
		return fmt.Errorf("write world: %w", err)
	}
	// JSON is YAML; going through nodes keeps the order of the fields.
	var doc yaml.Node
	if err := yaml.Unmarshal(asJSON, &doc); err != nil {
		return fmt.Errorf("write world: %w", err)
	}
	blockStyle(&doc)
	enc := yaml.NewEncoder(to)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return fmt.Errorf("write world: %w", err)
	}
	return enc.Close()
}

func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// State returns a copy of everything, free to change.
func (w *World) State() State { return deepCopy(*w.now.Load().State) }

// Replace puts s in the place of everything.
func (w *World) Replace(s State) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.put(deepCopy(s))
}

// Update changes the state. Nothing is changed when f or the check of its
// result returns an error.
func (w *World) Update(f func(*State) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.State()
	if err := f(&s); err != nil {
		return err
	}
	return w.put(s)
}

func (w *World) put(s State) error {
	s.Knobs.fill()
	if s.Seal == "" {
		s.Seal = base64.StdEncoding.EncodeToString(randomBytes(32))
	}
	v, err := newView(&s)
	if err != nil {
		return err
	}
	w.now.Store(v)
	return nil
}

func newView(s *State) (*view, error) {
	v := &view{State: s,
		tenants:   map[string]*Tenant{},
		users:     map[string]inTenant[User]{},
		mailboxes: map[string]inTenant[Mailbox]{},
		apps:      map[string]inTenant[App]{},
	}
	var err error
	if v.seal, err = base64.StdEncoding.DecodeString(s.Seal); err != nil || len(v.seal) != 32 {
		return nil, errors.New("world: seal must be 32 bytes in base64")
	}
	for _, t := range s.Tenants {
		if t == nil {
			return nil, errors.New("world: an empty tenant")
		}
		if err := v.index(t); err != nil {
			return nil, fmt.Errorf("world: tenant %s: %w", t.Name, err)
		}
	}
	return v, nil
}

func (v *view) index(t *Tenant) error {
	if !isGUID(t.ID) {
		return fmt.Errorf("id %q is not a GUID", t.ID)
	}
	if _, known := cloudHosts[t.Cloud]; !known {
		return fmt.Errorf("unknown cloud %q", t.Cloud)
	}
	err := claim(v.tenants, t, append([]string{t.ID}, t.Domains...)...)
	for _, u := range t.Users {
		if u == nil || !isGUID(u.ID) || !strings.Contains(u.Address, "@") {
			return fmt.Errorf("user %+v needs an id (GUID) and an address", u)
		}
		names := append([]string{u.ID, u.Address}, u.Aliases...)
		if u.UPN != "" && !strings.EqualFold(u.UPN, u.Address) {
			names = append(names, u.UPN)
		}
		err = errors.Join(err, claim(v.users, inTenant[User]{t, u}, names...))
	}
	for _, m := range t.Mailboxes {
		if m == nil || !strings.Contains(m.Address, "@") {
			return fmt.Errorf("mailbox %+v needs an address", m)
		}
		names := append([]string{m.Address}, m.Aliases...)
		err = errors.Join(err, claim(v.mailboxes, inTenant[Mailbox]{t, m}, names...))
	}
	for _, a := range t.Apps {
		if a == nil || !isGUID(a.ID) {
			return fmt.Errorf("app %+v needs an id (GUID)", a)
		}
		err = errors.Join(err, claim(v.apps, inTenant[App]{t, a}, a.ID))
	}
	if len(t.Domains) == 0 {
		err = errors.Join(err, errors.New("it needs a domain"))
	}
	return err
}

// claim enters item under each name, which nobody else may have.
func claim[T any](index map[string]T, item T, names ...string) error {
	for _, n := range names {
		n = strings.ToLower(n)
		if _, taken := index[n]; taken {
			return fmt.Errorf("%q is there twice", n)
		}
		index[n] = item
	}
	return nil
}

// deepCopy copies v with everything it points to. Times are values.
func deepCopy[T any](v T) T {
	return copyValue(reflect.ValueOf(v)).Interface().(T)
}

func copyValue(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		c := reflect.New(v.Type().Elem())
		c.Elem().Set(copyValue(v.Elem()))
		return c
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			c.Index(i).Set(copyValue(v.Index(i)))
		}
		return c
	case reflect.Struct:
		c := reflect.New(v.Type()).Elem()
		c.Set(v)
		if v.Type() == reflect.TypeFor[time.Time]() {
			return c
		}
		for i := range v.NumField() {
			c.Field(i).Set(copyValue(v.Field(i)))
		}
		return c
	}
	return v
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range s {
		switch dash := i == 8 || i == 13 || i == 18 || i == 23; {
		case dash && c != '-':
			return false
		case !dash && !strings.ContainsRune("0123456789abcdefABCDEF", c):
			return false
		}
	}
	return true
}

// newGUID makes a random GUID, version 4.
func newGUID() string {
	b := randomBytes(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
