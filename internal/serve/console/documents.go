package console

import (
	"bytes"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"

	"github.com/mailgrant/mailgrant/docs"
)

// A document is one file of docs/ as its page shows it.
type document struct {
	Name  string // "operate", "decisions/0001-lanes-not-jobs"
	Title string
	First string // its first sentence
	HTML  template.HTML
}

// known are all documents, made into pages when the first one is asked for.
var known = sync.OnceValue(func() map[string]document {
	all := map[string]document{}
	fs.WalkDir(docs.Files, ".", func(at string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(at, ".md") {
			b, _ := docs.Files.ReadFile(at) // it is part of the program
			name := strings.TrimSuffix(at, ".md")
			all[name] = readDocument(name, b)
		}
		return err
	})
	return all
})

// markdown writes no HTML of the source and no style attribute: our policy would
// not let it work.
var markdown = sync.OnceValue(func() goldmark.Markdown {
	return goldmark.New(
		goldmark.WithExtensions(extension.NewTable(extension.WithTableCellAlignMethod(extension.TableCellAlignAttribute))),
		goldmark.WithParserOptions(parser.WithAutoHeadingID(), parser.WithASTTransformers(util.Prioritized(links{}, 100))))
})

var wide = strings.NewReplacer("<pre>", `<pre tabindex="0">`, "<table>", `<div class="scroll" role="group" aria-label="Table" tabindex="0"><table>`, "</table>", "</table></div>")

// emptyHead is the head of a table that has only a body.
var emptyHead = regexp.MustCompile(`<thead>\s*<tr>\s*(<th[^>]*></th>\s*)+</tr>\s*</thead>`)

var here = parser.NewContextKey()

func readDocument(name string, source []byte) document {
	ctx := parser.NewContext()
	ctx.Set(here, name)
	root := markdown().Parser().Parse(text.NewReader(source), parser.WithContext(ctx))
	d := document{Name: name, Title: name}
	for n := root.FirstChild(); n != nil; n = n.NextSibling() {
		switch n := n.(type) {
		case *ast.Heading:
			if n.Level == 1 {
				d.Title = plainText(n, source)
			}
		case *ast.Paragraph:
			if d.First == "" {
				d.First = firstSentence(n, source)
			}
		}
	}
	var b bytes.Buffer
	markdown().Renderer().Render(&b, source, root) // into memory: it cannot fail
	d.HTML = template.HTML(emptyHead.ReplaceAllString(wide.Replace(b.String()), ""))
	return d
}

// firstSentence is that of a paragraph, fit to stand alone: without the word that
// heads a decision, and where it goes on from a command, with a capital.
func firstSentence(n ast.Node, source []byte) string {
	s, _, _ := strings.Cut(strings.TrimPrefix(plainText(n, source), "Question. "), ". ")
	if before := n.PreviousSibling(); before != nil && (before.Kind() == ast.KindCodeBlock || before.Kind() == ast.KindFencedCodeBlock) {
		r, size := utf8.DecodeRuneInString(s)
		s = string(unicode.ToUpper(r)) + s[size:]
	}
	return strings.TrimSuffix(s, ".") + "."
}

func plainText(n ast.Node, source []byte) string {
	var b strings.Builder
	ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := n.(*ast.Text); ok && entering {
			b.Write(t.Segment.Value(source))
			if t.SoftLineBreak() {
				b.WriteByte(' ')
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// links turns links between files into links between pages. What the program does
// not carry becomes plain text.
type links struct{}

// Transform implements parser.ASTTransformer.
func (links) Transform(doc *ast.Document, _ text.Reader, ctx parser.Context) {
	from, _ := ctx.Get(here).(string)
	var dead []*ast.Link
	ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		l, ok := n.(*ast.Link)
		if !ok || !entering {
			return ast.WalkContinue, nil
		}
		if to := pageFor(from, string(l.Destination)); to != "" {
			l.Destination = []byte(to)
		} else {
			dead = append(dead, l)
		}
		return ast.WalkContinue, nil
	})
	for _, l := range dead {
		p := l.Parent()
		for c := l.FirstChild(); c != nil; c = l.FirstChild() {
			p.InsertBefore(p, l, c)
		}
		p.RemoveChild(p, l)
	}
}

// pageFor is where a link of a document leads; "" is nowhere.
func pageFor(from, to string) string {
	switch {
	case strings.HasPrefix(to, "https://"), strings.HasPrefix(to, "#"):
		return to
	case strings.Contains(to, ":"):
		return ""
	}
	file, anchor, _ := strings.Cut(to, "#")
	if anchor != "" {
		anchor = "#" + anchor
	}
	file = path.Join(path.Dir(from), file)
	if cause, ok := strings.CutPrefix(file, "errors/"); ok {
		return "/docs/errors/" + strings.TrimSuffix(cause, ".md") + anchor
	}
	if file == "errors" {
		return "/docs/errors/"
	}
	if f, err := docs.Files.Open(file); err != nil || !strings.HasSuffix(file, ".md") {
		return ""
	} else {
		f.Close()
	}
	return "/docs/" + strings.TrimSuffix(file, ".md") + anchor
}

// order is in which documents are read; others come after them.
var order = []string{"start", "receive", "operate"}

// A shelf is the list of documents.
type shelf struct{ Guides, Decisions []document }

// documents lists them.
func (s *console) documents(w http.ResponseWriter, r *http.Request) {
	s.show(w, r, http.StatusOK, page{Name: "documents", Title: "Documentation", Nav: "docs", Data: shelved()})
}

func shelved() (sh shelf) {
	rank := func(name string) string {
		for i, o := range order {
			if o == name {
				return string(rune('0' + i))
			}
		}
		return name
	}
	for name, d := range known() {
		switch {
		case strings.HasPrefix(name, "decisions/README"):
		case strings.HasPrefix(name, "decisions/"):
			sh.Decisions = append(sh.Decisions, d)
		default:
			sh.Guides = append(sh.Guides, d)
		}
	}
	slices.SortFunc(sh.Guides, func(a, b document) int { return strings.Compare(rank(a.Name), rank(b.Name)) })
	slices.SortFunc(sh.Decisions, func(a, b document) int { return strings.Compare(a.Name, b.Name) })
	return sh
}

// document shows one.
func (s *console) document(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSuffix(r.PathValue("name"), ".md")
	d, ok := known()[name]
	if !ok {
		s.show(w, r, http.StatusNotFound, page{Name: "nothing", Title: "No such document", Nav: "docs"})
		return
	}
	if s.base != "" {
		d.HTML = template.HTML(strings.ReplaceAll(string(d.HTML), `href="/docs/`, `href="`+template.HTMLEscapeString(s.base)+`/docs/`))
	}
	s.show(w, r, http.StatusOK, page{Name: "document", Title: d.Title, Nav: "docs", Data: d})
}
