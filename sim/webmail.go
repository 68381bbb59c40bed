package sim

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"html"
	"mime"
	"net/http"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The web mailbox shows what became of mail: who has some, the folders of a
// mailbox, and a message as a person and as a program sees it. It only shows.

const webmailPrefix = "/webmail/"

// webmailPath is the page of a mailbox.
func webmailPath(address string) string { return webmailPrefix + url.PathEscape(address) }

func (s *Sim) webmailRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, webmailPrefix, http.StatusSeeOther)
	})
	mux.HandleFunc("GET /webmail", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, webmailPrefix, http.StatusSeeOther)
	})
	mux.HandleFunc("GET /webmail/{$}", s.webmailHome)
	mux.HandleFunc("GET /webmail/_changes", s.webmailChanges)
	mux.HandleFunc("GET /webmail/{address}", s.webmailBox)
	mux.HandleFunc("GET /webmail/{address}/{id}", s.webmailMessage)
	mux.HandleFunc("GET /webmail/{address}/{id}/body", s.webmailBody)
	mux.HandleFunc("GET /webmail/{address}/{id}/raw", s.webmailRaw)
	mux.HandleFunc("GET /webmail/{address}/{id}/files/{n}", s.webmailFile)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.webmailMissing(w, "There is no such page.") })
}

// A webmailPage is what the pages of the web mailbox show.
type webmailPage struct {
	Boxes   []webmailBox // beside every page
	Box     *webmailBox
	Folder  string
	Folders []webmailFolder
	List    []webmailLine
	Message *webmailMessage
	Version int
}

// A webmailBox is a mailbox in the list of all.
type webmailBox struct {
	Address, Name, Kind string
	Count               int
	Last                time.Time
	Here                bool
}

func (b webmailBox) Path() string { return webmailPath(b.Address) }

// Mark is the letters that stand for a mailbox without a picture.
func (b webmailBox) Mark() string { return initials(b.Name, b.Address) }

type webmailFolder struct {
	Name, Key string
	Count     int
	Here      bool
}

// A webmailLine is a message in a list.
type webmailLine struct {
	Message
	Who, Preview string
	Files        bool
	Box          string
}

func (l webmailLine) Path() string { return webmailPath(l.Box) + "/" + url.PathEscape(l.ID) }
func (l webmailLine) Mark() string { return initials(l.Who, l.Who) }

func showTime(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04:05") + " UTC" }

// initials are up to two letters of a name.
func initials(name, address string) string {
	if name == "" {
		name = address
	}
	var mark []rune
	for _, word := range strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune(" .@-_,", r) }) {
		if mark = append(mark, []rune(strings.ToUpper(word))[0]); len(mark) == 2 {
			break
		}
	}
	return string(mark)
}

// webmailBoxes lists all mailboxes: those of the world, then addresses outside
// that mail was caught for.
func (s *Sim) webmailBoxes(here string) []webmailBox {
	v := s.world.now.Load()
	var all []webmailBox
	seen := map[string]bool{}
	add := func(address, name, kind string) {
		b := webmailBox{Address: address, Name: name, Kind: kind, Here: strings.EqualFold(address, here)}
		for _, m := range s.mail.list(strings.ToLower(address), "") {
			b.Count++
			b.Last = m.At
		}
		seen[strings.ToLower(address)] = true
		all = append(all, b)
	}
	for _, t := range v.Tenants {
		for _, m := range t.Mailboxes {
			kind := t.Name
			if m.Shared {
				kind += ", shared"
			}
			add(m.Address, m.Name, kind)
		}
	}
	for _, address := range s.mail.mailboxes() {
		if !seen[address] {
			add(address, "", "elsewhere")
		}
	}
	if here != "" && !seen[strings.ToLower(here)] {
		add(here, "", "elsewhere")
	}
	return all
}

func (s *Sim) webmailHome(w http.ResponseWriter, r *http.Request) {
	boxes := s.webmailBoxes("")
	slices.SortStableFunc(boxes, func(a, b webmailBox) int { return b.Last.Compare(a.Last) })
	showPage(w, http.StatusOK, "mailboxes", page{Title: "Mailboxes", Data: webmailPage{Boxes: boxes, Version: s.mail.seen()}})
}

// webmailKeys are the words in the address of the standard folders. Those that
// are absent go by their name.
var webmailKeys = map[string]string{"inbox": "inbox", "sentitems": "sent", "drafts": "drafts"}

func (s *Sim) webmailBox(w http.ResponseWriter, r *http.Request) {
	p, key := s.webmailPage(r.PathValue("address")), r.URL.Query().Get("folder")
	if key == "" {
		key = "inbox"
	}
	for i, f := range p.Folders {
		if f.Key == key {
			p.Folders[i].Here, p.Folder = true, f.Name
		}
	}
	if p.Folder == "" {
		s.webmailMissing(w, "There is no such folder.")
		return
	}
	list := s.mail.list(strings.ToLower(p.Box.Address), p.Folder)
	slices.Reverse(list)
	for _, m := range list[:min(len(list), webmailListMax)] {
		p.List = append(p.List, webmailLineOf(p.Box.Address, m))
	}
	showPage(w, http.StatusOK, "mailbox", page{Title: p.Folder + " of " + p.Box.Address, Data: p})
}

// webmailListMax bounds the page; the control address lists everything.
const webmailListMax = 200

func (s *Sim) webmailPage(address string) webmailPage {
	address = s.mailboxOf(address)
	p := webmailPage{Boxes: s.webmailBoxes(address), Version: s.mail.seen()}
	for i := range p.Boxes {
		if p.Boxes[i].Here {
			p.Box = &p.Boxes[i]
		}
	}
	for _, f := range s.Folders(address) {
		if f.Count > 0 || f.Use == "inbox" || f.Use == "sentitems" || f.Use == "" {
			p.Folders = append(p.Folders, webmailFolder{Name: f.Name, Key: cmp.Or(webmailKeys[f.Use], f.Name), Count: f.Count})
		}
	}
	return p
}

func webmailLineOf(box string, m Message) webmailLine {
	r := readMessage(m.Raw)
	l := webmailLine{Message: m, Box: box, Preview: preview(r), Files: r.hasAttachments()}
	who := addressList(r.Header, "From")
	if m.folder.use == "sentitems" || m.folder.use == "drafts" {
		who = append(addressList(r.Header, "To"), append(addressList(r.Header, "Cc"), addressList(r.Header, "Bcc")...)...)
	}
	l.Who = namesOf(who)
	if l.Who == "" {
		l.Who = m.From
	}
	return l
}

func namesOf(list []*mail.Address) string {
	var names []string
	for _, a := range list {
		if a.Name != "" {
			names = append(names, a.Name)
		} else {
			names = append(names, a.Address)
		}
	}
	return strings.Join(names, ", ")
}

// A webmailMessage is one message to read.
type webmailMessage struct {
	webmailLine
	Fields [][2]string // those that a person looks for
	All    [][2]string // every field as it stands
	Text   string
	HTML   bool
	Parts  []webmailFile
	Size   string
	Back   string
}

type webmailFile struct {
	Name, Type, Size, Path string
}

func (s *Sim) webmailFind(w http.ResponseWriter, r *http.Request) (Message, bool) {
	m, ok := s.mail.find(s.mailboxOf(r.PathValue("address")), r.PathValue("id"))
	if !ok {
		s.webmailMissing(w, "This message is not there any more.")
	}
	return m, ok
}

func (s *Sim) webmailMessage(w http.ResponseWriter, r *http.Request) {
	m, ok := s.webmailFind(w, r)
	if !ok {
		return
	}
	p := s.webmailPage(r.PathValue("address"))
	read := readMessage(m.Raw)
	v := &webmailMessage{webmailLine: webmailLineOf(p.Box.Address, m), Text: read.Text, HTML: read.HTML != "", Size: sizeText(len(m.Raw))}
	for i, f := range p.Folders {
		if f.Name == m.Folder {
			p.Folders[i].Here, v.Back = true, webmailPath(p.Box.Address)+"?folder="+url.QueryEscape(f.Key)
		}
	}
	for _, name := range []string{"From", "Sender", "To", "Cc", "Bcc", "Reply-To", "Date"} {
		for _, value := range read.Header[name] {
			v.Fields = append(v.Fields, [2]string{name, readableField(value)})
		}
	}
	head, _ := splitMessage(m.Raw)
	for _, f := range fieldsOf(head) {
		name, value, _ := strings.Cut(string(f), ":")
		v.All = append(v.All, [2]string{name, strings.TrimSpace(value)})
	}
	for i, f := range read.Files {
		v.Parts = append(v.Parts, webmailFile{f.Name, f.Type, sizeText(len(f.Data)), v.Path() + "/files/" + strconv.Itoa(i)})
	}
	p.Message = v
	title := m.Subject
	if title == "" {
		title = "(no subject)"
	}
	showPage(w, http.StatusOK, "message", page{Title: title, Data: p})
}

// readableField writes a field of addresses without quotes and encoded words.
func readableField(value string) string {
	list, err := mail.ParseAddressList(value)
	if err != nil {
		return decodeWords(value)
	}
	var texts []string
	for _, a := range list {
		if a.Name != "" {
			texts = append(texts, a.Name+" <"+a.Address+">")
		} else {
			texts = append(texts, a.Address)
		}
	}
	return strings.Join(texts, ", ")
}

func sizeText(n int) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// webmailBody is the HTML of a message for the frame that shows it: without
// script, form or anything from elsewhere, in an origin of its own.
func (s *Sim) webmailBody(w http.ResponseWriter, r *http.Request) {
	m, ok := s.webmailFind(w, r)
	if !ok {
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; "+
		"style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	read := readMessage(m.Raw)
	fmt.Fprint(w, `<!DOCTYPE html><meta charset="utf-8"><style>body{font:16px/1.5 system-ui,"Segoe UI",sans-serif;margin:1rem;color:#1b1b1b;background:#fff}img{max-width:100%;height:auto}</style>`)
	fmt.Fprint(w, withPictures(read))
}

var cidLink = regexp.MustCompile(`(?i)cid:[^"'\s>)]+`)

// withPictures puts the pictures of a message into its HTML.
func withPictures(r *readable) string {
	return cidLink.ReplaceAllStringFunc(r.HTML, func(link string) string {
		cid, err := url.PathUnescape(html.UnescapeString(link[len("cid:"):]))
		if err != nil {
			return link
		}
		for _, f := range r.Files {
			if f.ContentID == cid && strings.HasPrefix(f.Type, "image/") && !strings.ContainsAny(f.Type, "\"'<> ;") {
				return "data:" + f.Type + ";base64," + base64.StdEncoding.EncodeToString(f.Data)
			}
		}
		return link
	})
}

func (s *Sim) webmailRaw(w http.ResponseWriter, r *http.Request) {
	if m, ok := s.webmailFind(w, r); ok {
		writeRaw(w, m)
	}
}

// webmailFile hands out an attachment, never to be shown in place.
func (s *Sim) webmailFile(w http.ResponseWriter, r *http.Request) {
	m, ok := s.webmailFind(w, r)
	if !ok {
		return
	}
	files := readMessage(m.Raw).Files
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 0 || n >= len(files) {
		s.webmailMissing(w, "There is no such file.")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": files[n].Name}))
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(files[n].Data)
}

func (s *Sim) webmailMissing(w http.ResponseWriter, text string) {
	showPage(w, http.StatusNotFound, "missing", page{Title: "Not found", Address: text})
}

// webmailChanges answers as soon as mail arrived since the version that the
// page knows, or after a while without.
func (s *Sim) webmailChanges(w http.ResponseWriter, r *http.Request) {
	since, err := strconv.Atoi(r.URL.Query().Get("since"))
	if err != nil {
		s.webmailMissing(w, "There is no such version.")
		return
	}
	give := time.NewTimer(25 * time.Second)
	defer give.Stop()
	changed := s.mail.arrivals()
	if s.mail.seen() == since {
		select {
		case <-changed:
		case <-give.C:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, map[string]int{"version": s.mail.seen()})
}
