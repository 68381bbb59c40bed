package mailgrant

import (
	"encoding/json"
	"fmt"
	"log/slog"
)

// A Secret is a value that must not be shown. It prints, formats, logs and
// marshals as [secret]; only Reveal gives the value.
type Secret struct{ v string }

const hidden = "[secret]"

// NewSecret wraps v.
func NewSecret(v string) Secret { return Secret{v} }

// Reveal is the value itself. Call it where the value leaves for its peer, and
// nowhere else.
func (s Secret) Reveal() string { return s.v }

// IsZero says whether there is no value.
func (s Secret) IsZero() bool { return s.v == "" }

func (s Secret) String() string               { return hidden }
func (s Secret) GoString() string             { return hidden }
func (s Secret) Format(f fmt.State, _ rune)   { fmt.Fprint(f, hidden) }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(hidden) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(hidden) }

// UnmarshalText takes a value that a person typed or a file holds.
func (s *Secret) UnmarshalText(b []byte) error { s.v = string(b); return nil }

// UnmarshalJSON takes a JSON string.
func (s *Secret) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &s.v) }
