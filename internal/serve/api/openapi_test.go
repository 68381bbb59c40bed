package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/docs"
)

var update = flag.Bool("update", false, "write docs/openapi.yaml anew")

const documentFile = "../../../docs/openapi.yaml"

// TestDocumentIsThatOfTheCode makes the document of the table of routes, the types
// of the wire and their comments, and holds it against the one that is served.
func TestDocumentIsThatOfTheCode(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("# Made of the code by: go test ./internal/serve/api -run Document -update\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(newDocument(t).node()); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(documentFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(b.Bytes(), docs.OpenAPI) {
		t.Errorf("docs/openapi.yaml is not that of the code; write it anew: go test ./internal/serve/api -run Document -update")
	}
}

// An object is a mapping that keeps its order.
type object []any

func (o object) node() *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i < len(o); i += 2 {
		n.Content = append(n.Content, nodeOf(o[i]), nodeOf(o[i+1]))
	}
	return n
}

func nodeOf(v any) *yaml.Node {
	switch v := v.(type) {
	case object:
		return v.node()
	case []object:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for _, o := range v {
			n.Content = append(n.Content, o.node())
		}
		return n
	}
	n := &yaml.Node{}
	if err := n.Encode(v); err != nil {
		panic(err)
	}
	return n
}

// A document is made in the order of the table.
type document struct {
	words   words
	schemas map[string]object
	types   map[string]reflect.Type
	inputs  map[string]bool // types that only go in
	in      bool
}

func newDocument(t *testing.T) object {
	d := &document{words: readWords(t), schemas: map[string]object{}, types: map[string]reflect.Type{}, inputs: map[string]bool{}}
	var paths object
	byPath := map[string]*object{}
	var order []string
	for _, r := range table() {
		if byPath[r.path] == nil {
			byPath[r.path] = &object{}
			order = append(order, r.path)
		}
		*byPath[r.path] = append(*byPath[r.path], strings.ToLower(r.method), d.operation(r))
	}
	for _, p := range order {
		paths = append(paths, p, *byPath[p])
	}
	d.schema(reflect.TypeFor[client.Problem]())
	var schemas object
	names := make([]string, 0, len(d.schemas))
	for name := range d.schemas {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		s := d.schemas[name]
		if d.inputs[name] {
			s = append(s, "additionalProperties", false)
		}
		schemas = append(schemas, name, s)
	}
	return object{
		"openapi", "3.1.0",
		"info", object{"title", "mailgrant", "version", "1",
			"description", "Mail of applications through mailboxes that were consented to. Every error is a problem (RFC 9457) with its remedy. " +
				"Unknown fields and names are refused. Times are RFC 3339, spans of time in nanoseconds where they are numbers.",
			"license", object{"name", "Apache 2.0", "identifier", "Apache-2.0"}},
		"servers", []object{{"url", "/"}},
		"security", []object{{"key", []string{}}},
		"paths", paths,
		"components", object{
			"securitySchemes", object{"key", object{"type", "http", "scheme", "bearer",
				"description", "A key of an app: mailgrant app key issue. The rights that one of is needed stand at each operation; manage includes all others."}},
			"responses", object{"Problem", object{"description", "It was refused or failed, and why.",
				"headers", object{"Mailgrant-Trace", object{"description", "Names the request in the log.", "schema", object{"type", "string"}},
					"Retry-After", object{"description", "Seconds after which trying again makes sense.", "schema", object{"type", "integer"}}},
				"content", object{"application/problem+json", object{"schema", ref("Problem")}}}},
			"schemas", schemas,
		},
	}
}

func ref(name string) object { return object{"$ref", "#/components/schemas/" + name} }

var pathArg = regexp.MustCompile(`\{(\w+)\}`)

func (d *document) operation(r endpoint) object {
	o := object{"operationId", r.id, "summary", r.text}
	switch {
	case r.operator:
		o = append(o, "description", "Only the operator may, on the socket of the server itself.")
	case r.public:
		o = append(o, "security", []object{{}, {"key", []string{}}})
	}
	if len(r.scopes) > 0 {
		var any []object
		for _, s := range r.scopes {
			any = append(any, object{"key", []string{string(s)}})
		}
		o = append(o, "security", any)
	}
	var params []object
	for _, m := range pathArg.FindAllStringSubmatch(r.path, -1) {
		text := "Id of the " + m[1] + "."
		if other := map[string]string{"mailbox": "Id or address of the mailbox.", "app": "Id or name of the app.", "attachment": "Number of the attachment, from 1."}[m[1]]; other != "" {
			text = other
		}
		params = append(params, object{"name", m[1], "in", "path", "required", true, "description", text, "schema", object{"type", "string"}})
	}
	for _, p := range r.query {
		params = append(params, parameter(p, "query"))
	}
	for _, p := range r.headers {
		params = append(params, parameter(p, "header"))
	}
	if params != nil {
		o = append(o, "parameters", params)
	}
	if r.in != nil {
		d.in = true
		content := object{jsonType, object{"schema", d.schema(reflect.TypeOf(r.in))}}
		for _, k := range r.kinds {
			content = append(content, k, object{"schema", object{"type", "string"}})
		}
		o = append(o, "requestBody", object{"required", true, "content", content})
		d.in = false
	}
	answer := object{"description", meaning(r.status)}
	if r.status == 201 || r.status == 202 {
		answer = append(answer, "headers", object{"Location", object{"description", "Where it is, if it has an address of its own.", "schema", object{"type", "string"}}})
	}
	var content object
	if r.out != nil {
		content = append(content, jsonType, object{"schema", d.schema(reflect.TypeOf(r.out))})
	}
	for _, k := range r.also {
		schema := object{"type", "string"}
		if k == jsonType {
			schema = object{"type", "object"}
		}
		content = append(content, k, object{"schema", schema})
	}
	if content != nil {
		answer = append(answer, "content", content)
	}
	return append(o, "responses", object{strconv.Itoa(r.status), answer, "default", object{"$ref", "#/components/responses/Problem"}})
}

func meaning(status int) string {
	return map[int]string{200: "Done.", 201: "Made.", 202: "Accepted: it will be sent, or its sender will hear why not.", 204: "Done; there is nothing more to say."}[status]
}

func parameter(p param, where string) object {
	s := object{"type", p.kind}
	if p.kind == "date-time" {
		s = object{"type", "string", "format", "date-time"}
	}
	if p.of != nil {
		s = append(s, "enum", p.of)
	}
	if p.many {
		s = object{"type", "array", "items", s}
	}
	o := object{"name", p.name, "in", where}
	if p.must {
		o = append(o, "required", true)
	}
	return append(o, "description", p.text, "schema", s)
}

func (d *document) schema(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type", "string", "format", "date-time"}
	case reflect.TypeFor[time.Duration]():
		return object{"type", "integer", "format", "int64"}
	case reflect.TypeFor[mailgrant.Duration]():
		return object{"type", "string", "examples", []string{"36h0m0s"}}
	case reflect.TypeFor[json.RawMessage]():
		return object{"description", "Any JSON."}
	case reflect.TypeFor[[]byte]():
		return object{"type", "string", "contentEncoding", "base64"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.String:
		if of := d.words.enums[t.Name()]; t.PkgPath() != "" && of != nil && t != reflect.TypeFor[mailgrant.ID]() {
			return object{"type", "string", "enum", of}
		}
		return object{"type", "string"}
	case reflect.Bool:
		return object{"type", "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type", "integer", "format", "int64"}
	case reflect.Uint32:
		return object{"type", "integer", "format", "int64", "minimum", 0}
	case reflect.Float64:
		return object{"type", "number"}
	case reflect.Slice:
		return object{"type", "array", "items", d.schema(t.Elem())}
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return object{"type", "object"}
		}
		return object{"type", "object", "additionalProperties", d.schema(t.Elem())}
	case reflect.Struct:
		return d.structure(t)
	}
	panic("no schema for " + t.String())
}

var pageOf = regexp.MustCompile(`^Page\[.*\.(\w+)\]$`)

func (d *document) structure(t reflect.Type) object {
	name := t.Name()
	if m := pageOf.FindStringSubmatch(name); m != nil {
		name = m[1] + "Page"
	}
	if have, ok := d.types[name]; ok {
		if have != t {
			panic(fmt.Sprintf("two types are called %s: %s, %s", name, have, t))
		}
		if !d.in {
			d.outwards(t)
		}
		return ref(name)
	}
	d.types[name], d.inputs[name] = t, d.in
	var props object
	var required []string
	d.properties(t, &props, &required)
	s := object{"type", "object"}
	if text := d.words.types[t.PkgPath()+"."+t.Name()]; text != "" {
		s = append(s, "description", text)
	}
	s = append(s, "properties", props)
	if required != nil {
		s = append(s, "required", required)
	}
	d.schemas[name] = s
	return ref(name)
}

// outwards notes that a type is in answers too.
func (d *document) outwards(t reflect.Type) {
	if t.Kind() == reflect.Struct && d.inputs[t.Name()] {
		d.inputs[t.Name()] = false
	}
}

func (d *document) properties(t reflect.Type, props *object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			d.properties(f.Type, props, required)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || name == "" {
			continue
		}
		s := d.schema(f.Type)
		if text := d.words.fields[t.PkgPath()+"."+t.Name()+"."+f.Name]; text != "" && s[0] != "description" {
			s = append(slices.Clone(s), "description", text)
		}
		*props = append(*props, name, s)
		if options == "" {
			*required = append(*required, name)
		}
	}
}

// words are the comments of the types of the wire, and the values of their enums.
type words struct {
	types, fields map[string]string
	enums         map[string][]string
}

func readWords(t *testing.T) words {
	w := words{types: map[string]string{}, fields: map[string]string{}, enums: map[string][]string{}}
	for dir, pkg := range map[string]string{"../../../client": "github.com/mailgrant/mailgrant/client", "../../..": "github.com/mailgrant/mailgrant"} {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), dir+"/"+f.Name(), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range file.Decls {
				if g, ok := decl.(*ast.GenDecl); ok {
					w.declaration(pkg, g)
				}
			}
		}
	}
	return w
}

func (w words) declaration(pkg string, g *ast.GenDecl) {
	for _, spec := range g.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			name := pkg + "." + s.Name.Name
			w.types[name] = sentence(cmp.Or(s.Doc.Text(), g.Doc.Text()))
			if st, ok := s.Type.(*ast.StructType); ok {
				for _, f := range st.Fields.List {
					for _, n := range f.Names {
						w.fields[name+"."+n.Name] = sentence(f.Comment.Text())
					}
				}
			}
		case *ast.ValueSpec:
			typ, ok := s.Type.(*ast.Ident)
			if g.Tok != token.CONST || !ok {
				continue
			}
			for _, v := range s.Values {
				if l, ok := v.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if text, err := strconv.Unquote(l.Value); err == nil {
						w.enums[typ.Name] = append(w.enums[typ.Name], text)
					}
				}
			}
		}
	}
}

// sentence is the first paragraph of a comment, in one line.
func sentence(s string) string {
	s, _, _ = strings.Cut(s, "\n\n")
	s = strings.Join(strings.Fields(s), " ")
	if s != "" && !strings.HasSuffix(s, ".") {
		s = strings.ToUpper(s[:1]) + s[1:] + "."
	}
	return s
}

// TestDocumentHolds checks the served document as OpenAPI 3.1 has it.
func TestDocumentHolds(t *testing.T) {
	var doc map[string]any
	if err := json.Unmarshal(openAPIJSON(), &doc); err != nil {
		t.Fatal(err)
	}
	if v, _ := doc["openapi"].(string); !strings.HasPrefix(v, "3.1.") {
		t.Errorf("got openapi %q, want 3.1", v)
	}
	info, _ := doc["info"].(map[string]any)
	if info["title"] == nil || info["version"] == nil {
		t.Errorf("info has no title or version: %v", info)
	}
	walk(doc, "#", func(at string, m map[string]any) {
		if r, ok := m["$ref"].(string); ok && !resolves(doc, r) {
			t.Errorf("%s: %s leads nowhere", at, r)
		}
	})
	paths, _ := doc["paths"].(map[string]any)
	ids := map[string]bool{}
	for path, item := range paths {
		for method, v := range item.(map[string]any) {
			checkOperation(t, strings.ToUpper(method), path, v.(map[string]any), ids)
		}
	}
	for _, r := range table() {
		item, _ := paths[r.path].(map[string]any)
		if item[strings.ToLower(r.method)] == nil {
			t.Errorf("%s %s is not in the document", r.method, r.path)
		}
	}
	if len(ids) != len(table()) {
		t.Errorf("the document has %d operations, the table %d", len(ids), len(table()))
	}
}

func checkOperation(t *testing.T, method, path string, o map[string]any, ids map[string]bool) {
	id, _ := o["operationId"].(string)
	if id == "" || ids[id] {
		t.Errorf("%s %s: the operationId %q is empty or there twice", method, path, id)
	}
	ids[id] = true
	responses, _ := o["responses"].(map[string]any)
	if len(responses) == 0 {
		t.Errorf("%s: there are no responses", id)
	}
	for status, r := range responses {
		m := r.(map[string]any)
		if m["$ref"] == nil && m["description"] == "" {
			t.Errorf("%s: the response %s has no description", id, status)
		}
	}
	want := map[string]bool{}
	for _, m := range pathArg.FindAllStringSubmatch(path, -1) {
		want[m[1]] = true
	}
	params, _ := o["parameters"].([]any)
	for _, p := range params {
		m := p.(map[string]any)
		name, _ := m["name"].(string)
		if m["schema"] == nil || m["description"] == "" {
			t.Errorf("%s: the parameter %s has no schema or description", id, name)
		}
		if m["in"] == "path" {
			if !want[name] || m["required"] != true {
				t.Errorf("%s: the path parameter %s is not in %s, or not required", id, name, path)
			}
			delete(want, name)
		}
	}
	if len(want) > 0 {
		t.Errorf("%s: %v stand in the path and not in the parameters", id, want)
	}
	if b, ok := o["requestBody"].(map[string]any); ok && b["content"] == nil {
		t.Errorf("%s: the body has no content", id)
	}
}

func walk(v any, at string, f func(string, map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		f(at, v)
		for k, e := range v {
			walk(e, at+"/"+k, f)
		}
	case []any:
		for i, e := range v {
			walk(e, at+"/"+strconv.Itoa(i), f)
		}
	}
}

func resolves(doc map[string]any, r string) bool {
	var v any = doc
	rest, ok := strings.CutPrefix(r, "#/")
	for part := range strings.SplitSeq(rest, "/") {
		m, is := v.(map[string]any)
		ok = ok && is && m[part] != nil
		if !ok {
			return false
		}
		v = m[part]
	}
	return ok
}
