package api

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

const (
	textMax = settingsMax // bytes of one text in settings
	listMax = 10_000      // elements of one list
)

// decodeBytes reads b, which is one value, into v.
func decodeBytes(b []byte, v any) error {
	j := &jsonReader{r: bytes.NewReader(nil), buf: b, end: len(b), read: int64(len(b))}
	if err := j.value("", reflect.ValueOf(v).Elem()); err != nil {
		return err
	}
	return j.finish()
}

// value reads the next value into v by its type. It is strict where encoding/json
// is kind: a name in another case, null for what cannot be absent and whatever
// jsonReader refuses are errors that say where. AP-05.
func (j *jsonReader) value(field string, v reflect.Value) error {
	if v.Kind() == reflect.Pointer {
		if null, err := j.null(); null || err != nil {
			return err
		}
		v.Set(reflect.New(v.Type().Elem()))
		return j.value(field, v.Elem())
	}
	if t, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return j.textual(field, t)
	}
	switch v.Kind() {
	case reflect.Struct:
		return j.fields(field, v)
	case reflect.String:
		s, err := j.str(field, textMax)
		v.SetString(s)
		return err
	case reflect.Bool:
		b, err := j.boolean(field)
		v.SetBool(b)
		return err
	case reflect.Int, reflect.Int64:
		n, err := j.integer(field)
		v.SetInt(n)
		return err
	case reflect.Slice:
		return j.array(field, func(n int) error {
			if n >= listMax {
				return tooMany(field, listMax)
			}
			e := reflect.New(v.Type().Elem()).Elem()
			if err := j.value(fmt.Sprintf("%s[%d]", field, n), e); err != nil {
				return err
			}
			v.Set(reflect.Append(v, e))
			return nil
		})
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		return j.object(field, func(key string) error {
			e := reflect.New(v.Type().Elem()).Elem()
			err := j.value(join(field, clip(key)), e)
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), e)
			return err
		})
	case reflect.Interface:
		x, err := j.anything(field)
		if x != nil {
			v.Set(reflect.ValueOf(x))
		}
		return err
	}
	panic("api: a type of the wire that cannot be read: " + v.Type().String())
}

func tooMany(field string, limit int) error {
	return mailgrant.Errorf(mailgrant.Invalid, errJSON, "%s has more than %d elements", named(field), limit).Fix("send fewer").At(field)
}

// fields reads an object into a struct.
func (j *jsonReader) fields(field string, v reflect.Value) error {
	return j.object(field, func(key string) error {
		for i := range v.NumField() {
			if name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); name == key && name != "" {
				return j.value(join(field, key), v.Field(i))
			}
		}
		return unknown(join(field, clip(key)))
	})
}

func unknown(field string) *mailgrant.Error {
	return mailgrant.Errorf(mailgrant.Invalid, errJSON, "there is no field of this name here").
		Fix("compare it with /v1/openapi.yaml; mind spelling and case").At(field)
}

// textual reads what is written as a text: times, durations.
func (j *jsonReader) textual(field string, t encoding.TextUnmarshaler) error {
	b, err := j.bytes(field, 100)
	if err != nil {
		return err
	}
	if err := t.UnmarshalText(b); err != nil {
		what, like := "time", "2026-01-31T09:00:00Z"
		if _, ok := t.(*time.Time); !ok {
			what, like = "duration", "90m"
		}
		return mailgrant.Errorf(mailgrant.Invalid, errJSON, "%s is not a %s", field, what).Fix("write it like %s", like).At(field)
	}
	return nil
}

func (j *jsonReader) integer(field string) (int64, error) {
	if c := j.peek(); c != '-' && (c < '0' || c > '9') {
		return 0, notWhole(field)
	}
	text, err := j.numberText()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return 0, notWhole(field)
	}
	return n, nil
}

func notWhole(field string) error {
	return mailgrant.Errorf(mailgrant.Invalid, errJSON, "%s must be a whole number", named(field)).Fix("write it without quotation marks or a point").At(field)
}

// anything reads a value whose type is its own.
func (j *jsonReader) anything(field string) (any, error) {
	switch c := j.peek(); {
	case c == '{':
		m := map[string]any{}
		err := j.object(field, func(key string) (err error) {
			m[key], err = j.anything(join(field, clip(key)))
			return err
		})
		return m, err
	case c == '[':
		l := []any{}
		err := j.array(field, func(n int) error {
			if n >= listMax {
				return tooMany(field, listMax)
			}
			v, err := j.anything(field)
			l = append(l, v)
			return err
		})
		return l, err
	case c == '"':
		return j.str(field, textMax)
	case c == 't' || c == 'f':
		return j.boolean(field)
	case c == '-' || '0' <= c && c <= '9':
		text, err := j.numberText()
		if err != nil {
			return nil, err
		}
		return strconv.ParseFloat(string(text), 64)
	}
	null, err := j.null()
	if err == nil && !null {
		err = j.skip(field) // says what is wrong
	}
	return nil, err
}
