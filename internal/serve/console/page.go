package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"sync"

	"github.com/mailgrant/mailgrant"
)

//go:embed pages
var pages embed.FS

// A page is what the frame around every page shows, and the data of the one
// inside.
type page struct {
	Name  string // file below pages/
	Title string
	Nav   string // where we are: "home", "docs", "errors"; "" is a page of a consent, which has no way out but its own
	Trace mailgrant.ID
	Data  any

	Base, Version, Style string
}

// parsed are the templates: each is read when it is first shown, so that none of
// them delays the start.
var parsed sync.Map // name → func() *template.Template

func templateOf(name string) *template.Template {
	read, _ := parsed.LoadOrStore(name, sync.OnceValue(func() *template.Template {
		return template.Must(template.New("layout.html").Funcs(template.FuncMap{"parts": parts}).ParseFS(pages, "pages/layout.html", "pages/parts.html", "pages/"+name+".html"))
	}))
	return read.(func() *template.Template)()
}

// show writes a page. It is made whole before the first byte leaves.
func (s *console) show(w http.ResponseWriter, r *http.Request, status int, p page) {
	p.Base, p.Version, p.Style = s.base, s.Version, assetOf("style.css").mark
	var b bytes.Buffer
	if err := templateOf(p.Name).Execute(&b, p); err != nil {
		s.Log.Error("a page cannot be made", "page", p.Name, "err", err)
		http.Error(w, "mailgrant could not make this page", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(b.Bytes())
	}
}

// A file is one that pages link to.
type file struct {
	bytes []byte
	mark  string // changes with the bytes
}

var files sync.Map // name → func() file

func assetOf(name string) file {
	read, _ := files.LoadOrStore(name, sync.OnceValue(func() file {
		b, err := pages.ReadFile("pages/" + name)
		if err != nil {
			panic(err) // it is part of the program
		}
		sum := sha256.Sum256(b)
		return file{b, hex.EncodeToString(sum[:6])}
	}))
	return read.(func() file)()
}

// asset serves a file that may be kept: who links to it says which form is meant.
func asset(name, kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f := assetOf(name)
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("ETag", `"`+f.mark+`"`)
		h.Set("Cache-Control", "public, max-age=3600")
		if r.URL.Query().Get("v") == f.mark {
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		if r.Header.Get("If-None-Match") == `"`+f.mark+`"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(f.bytes)
	}
}
