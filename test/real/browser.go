package real

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// PageOptions say what differs from a desktop with script.
type PageOptions struct {
	NoScript      bool
	Dark          bool
	Width, Height int // 0: 1280 × 800
}

// A Browser is a page of Chromium with cookies of its own. What is not as asked
// fails the test, with a picture of the page in test/artifacts.
//
// Elements are named as Playwright does: "#address", "text=Allow",
// `role=button[name="Allow"]`; each call waits until the one element is there.
// Certificates are not looked at. Nothing leaves this machine: an address
// elsewhere shows an empty page, so that a redirect to it can be read off URL.
type Browser struct {
	t  testing.TB
	id int
}

// chrome is the one Chromium of this process; it ends when this process does.
var chrome struct {
	sync.Mutex
	in    io.Writer
	out   *os.File // has deadlines
	lines *bufio.Reader
	log   log
	last  int
}

// clickWithin bounds what one call may take.
const clickWithin = 20 * time.Second

// NewBrowser opens an empty page.
func NewBrowser(t testing.TB) *Browser {
	t.Helper()
	return NewBrowserWith(t, PageOptions{})
}

// NewBrowserWith opens an empty page of another kind.
func NewBrowserWith(t testing.TB, o PageOptions) *Browser {
	t.Helper()
	b := &Browser{t: t, id: page(t)}
	b.must(nil, "open", map[string]any{"noScript": o.NoScript, "dark": o.Dark, "width": o.Width, "height": o.Height})
	t.Cleanup(b.leave)
	return b
}

// page is the number of a new page. A Chromium that does not start ends the test, and
// must not keep the next one waiting.
func page(t testing.TB) int {
	t.Helper()
	chrome.Lock()
	defer chrome.Unlock()
	if chrome.in == nil {
		startChromium(t)
	}
	chrome.last++
	return chrome.last
}

func startChromium(t testing.TB) {
	t.Helper()
	dir, node, chromium := nodeDir(t), program(t, "node"), program(t, "chromium")
	home := folder(t, "chrome")
	atExit(t, "n=0; while [ $n -lt 50 ] && ! rm -rf "+quote(home)+" 2>/dev/null; do sleep 0.1; n=$((n+1)); done")
	settings, err := json.Marshal(map[string]any{"chromium": chromium, "milliseconds": (clickWithin - 5*time.Second).Milliseconds()})
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(node, "browser.mjs")
	c.Dir, c.Stderr = dir, &chrome.log
	c.Env = append(c.Environ(), "SETTINGS="+string(settings), "HOME="+home, "TMPDIR="+home, "NODE_NO_WARNINGS=1")
	in, err1 := c.StdinPipe() // when we end, so does it
	out, err2 := c.StdoutPipe()
	if err := errors.Join(err1, err2, c.Start()); err != nil {
		t.Fatalf("Chromium: %v", err)
	}
	f, ok := out.(*os.File)
	if !ok {
		t.Fatalf("Chromium: its output is %T", out)
	}
	f.SetReadDeadline(time.Now().Add(upWithin))
	if _, err := firstJSON(f, &chrome.log); err != nil {
		c.Process.Kill()
		t.Fatalf("Chromium did not start: %v\n%s", err, tail(chrome.log.String()))
	}
	chrome.in, chrome.out, chrome.lines = in, f, bufio.NewReader(f)
}

// ask has the page do something, and reads the answer into value.
func (b *Browser) ask(value any, do string, with map[string]any) error {
	chrome.Lock()
	defer chrome.Unlock()
	if chrome.in == nil {
		return errors.New("no Chromium any more")
	}
	line, err := json.Marshal(map[string]any{"page": b.id, "do": do, "with": with})
	if err != nil {
		return err
	}
	chrome.out.SetReadDeadline(time.Now().Add(clickWithin))
	_, err = chrome.in.Write(append(line, '\n'))
	var reply []byte
	if err == nil {
		reply, err = chrome.lines.ReadBytes('\n')
	}
	if err != nil { // an answer that comes late would be taken for that of the next question
		chrome.in = nil
		return fmt.Errorf("no answer of Chromium: %w\n%s", err, tail(chrome.log.String()))
	}
	var r struct {
		Value json.RawMessage
		Error string
	}
	if err := json.Unmarshal(reply, &r); err != nil {
		return err
	}
	if r.Error != "" {
		return errors.New(r.Error)
	}
	if value == nil {
		return nil
	}
	return json.Unmarshal(r.Value, value)
}

func (b *Browser) must(value any, do string, with map[string]any) {
	b.t.Helper()
	if err := b.ask(value, do, with); err != nil {
		b.t.Fatalf("%s %v: %v", do, with, err)
	}
}

// leave closes the page. Of one that a test failed on, a picture is kept.
func (b *Browser) leave() {
	if b.t.Failed() {
		b.picture()
	}
	b.ask(nil, "close", nil) // Chromium may be gone
}

func (b *Browser) picture() {
	var url, text string
	b.ask(&url, "url", nil)
	b.ask(&text, "text", map[string]any{"at": "body"})
	dir := filepath.Join(nodeDir(b.t), "..", "..", "artifacts")
	file := filepath.Join(dir, strings.NewReplacer("/", "-", " ", "_").Replace(b.t.Name())+"-"+strconv.Itoa(b.id)+".png")
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = b.ask(nil, "screenshot", map[string]any{"text": file})
	}
	b.t.Logf("the page was %s, its picture is %s (%v), its text:\n%s", url, filepath.Clean(file), err, tail(text))
}

func at(element string) map[string]any         { return map[string]any{"at": element} }
func with(element, text string) map[string]any { return map[string]any{"at": element, "text": text} }
func (b *Browser) string(do, element string) (s string) {
	b.t.Helper()
	b.must(&s, do, at(element))
	return s
}

// Goto opens an address and gives the HTTP status.
func (b *Browser) Goto(url string) (status int) {
	b.t.Helper()
	b.must(&status, "goto", map[string]any{"url": url})
	return status
}

// Click clicks an element, and waits for the page that this leads to.
func (b *Browser) Click(element string) { b.t.Helper(); b.must(nil, "click", at(element)) }

// Fill writes into a field.
func (b *Browser) Fill(element, text string) { b.t.Helper(); b.must(nil, "fill", with(element, text)) }

// Select chooses an option of a list by what it shows.
func (b *Browser) Select(element, label string) {
	b.t.Helper()
	b.must(nil, "select", with(element, label))
}

// Attach chooses a file in a file field.
func (b *Browser) Attach(element, path string) {
	b.t.Helper()
	b.must(nil, "attach", with(element, path))
}

// Press presses a key, such as "Tab", "Enter", "Control+A".
func (b *Browser) Press(key string) {
	b.t.Helper()
	b.must(nil, "press", map[string]any{"text": key})
}

// Focused tells the element that keys go to: its text, id or tag.
func (b *Browser) Focused() (s string) {
	b.t.Helper()
	b.must(&s, "focused", nil)
	return s
}

// Text is what an element shows.
func (b *Browser) Text(element string) string { b.t.Helper(); return b.string("text", element) }

// Value is what a field holds.
func (b *Browser) Value(element string) string { b.t.Helper(); return b.string("value", element) }

// Attribute is an attribute of an element, "" when it has none of that name.
func (b *Browser) Attribute(element, name string) string {
	b.t.Helper()
	var s *string
	b.must(&s, "attribute", with(element, name))
	if s == nil {
		return ""
	}
	return *s
}

// Count is how many such elements there are now.
func (b *Browser) Count(element string) (n int) {
	b.t.Helper()
	b.must(&n, "count", at(element))
	return n
}

// Wait waits until there is such an element to be seen.
func (b *Browser) Wait(element string) { b.t.Helper(); b.must(nil, "wait", at(element)) }

// WaitURL waits until the address has part in it.
func (b *Browser) WaitURL(part string) {
	b.t.Helper()
	b.must(nil, "waiturl", map[string]any{"text": part})
}

// URL is the address of the page, also of one elsewhere.
func (b *Browser) URL() string { b.t.Helper(); return b.string("url", "") }

// Title is the title of the page.
func (b *Browser) Title() string { b.t.Helper(); return b.string("title", "") }

// HTML is the page as it is now.
func (b *Browser) HTML() string { b.t.Helper(); return b.string("html", "") }

// Back goes back in the history.
func (b *Browser) Back() { b.t.Helper(); b.must(nil, "back", nil) }

// Reload loads the page anew.
func (b *Browser) Reload() { b.t.Helper(); b.must(nil, "reload", nil) }

// Screenshot writes a picture of the whole page as PNG.
func (b *Browser) Screenshot(path string) {
	b.t.Helper()
	b.must(nil, "screenshot", map[string]any{"text": path})
}

// Elsewhere are the addresses outside this machine that pages have asked for.
func (b *Browser) Elsewhere() (urls []string) {
	b.t.Helper()
	b.must(&urls, "elsewhere", nil)
	return urls
}

// Faults are what the pages so far have put on the developer's console: errors
// of scripts, what the content security policy kept out, what did not load.
func (b *Browser) Faults() (lines []string) {
	b.t.Helper()
	b.must(&lines, "faults", nil)
	return lines
}

// Accessibility is what axe finds wrong with the page for people who cannot see
// it or use no mouse: WCAG 2.2 A and AA, and good practice. It needs script.
func (b *Browser) Accessibility() (violations []string) {
	b.t.Helper()
	b.must(&violations, "axe", nil)
	return violations
}
