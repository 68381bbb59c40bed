package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"
)

// around puts the faults of a point of the sign-in service before a handler.
func (fs *faults) around(point string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		at := point
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		}
		if r.ParseForm() == nil && point == "token" {
			grant := r.PostForm.Get("grant_type")
			at += "." + grant[strings.LastIndexByte(grant, ':')+1:]
		}
		about := []string{r.PathValue("tenant"), r.Form.Get("client_id"), r.Form.Get("login_hint")}
		if text := r.PostForm.Get("refresh_token"); text != "" {
			if g, ok := fs.sim.entra.openGrant(text); ok {
				about = append(about, fs.addressOf(g.User))
			}
		}
		fs.strike(w, r, fs.take(at, about...), h, fs.sim.entra.faultStatus)
	}
}

func (fs *faults) addressOf(user string) string {
	u, _ := fs.sim.world.User(user)
	return u.Address
}

// strike does what the fault says in the place of h. With none h runs as
// usual. Status answers in the manner of the place.
func (fs *faults) strike(w http.ResponseWriter, r *http.Request, f *Fault, h http.HandlerFunc,
	status func(http.ResponseWriter, *http.Request, *Fault)) {
	if f == nil {
		h(w, r)
		return
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	switch f.Do {
	case DoSlow:
		body, err := io.ReadAll(r.Body) // only then net/http sees the client go
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if fs.sim.clock.sleep(r.Context(), f.delay(fs.sim.world.Knobs().SlowBy)) == nil {
			h(w, r)
		}
	case DoHang:
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	case DoLost:
		h(&unsent{header: http.Header{}}, r)
		panic(http.ErrAbortHandler)
	case DoStatus, DoAADSTS:
		status(w, r, f)
	case DoHTML:
		writeHTML(w, f)
	case DoBody:
		writeBody(w, f)
	case DoBig:
		writeBig(w, f.Bytes)
	case DoDrip:
		drip(w, r, time.Duration(f.Delay))
	case DoRedirect:
		w.Header().Set("Location", f.Location)
		w.WriteHeader(orStatus(f.Status, http.StatusTemporaryRedirect))
	case DoEdit:
		edit(w, r, f, h)
	case DoCut:
		cut(w, r, f, h)
	default:
		panic(http.ErrAbortHandler)
	}
}

func orStatus(status, usual int) int {
	if status == 0 {
		return usual
	}
	return status
}

// An unsent is where an answer goes that nobody hears.
type unsent struct{ header http.Header }

func (u *unsent) Header() http.Header         { return u.header }
func (u *unsent) Write(b []byte) (int, error) { return len(b), nil }
func (u *unsent) WriteHeader(int)             {}

// faultStatus answers as the sign-in service would.
func (en *entra) faultStatus(w http.ResponseWriter, r *http.Request, f *Fault) {
	if f.Do == DoAADSTS {
		e := fail(f.Code, "appId", r.Form.Get("client_id"), "tenant", r.PathValue("tenant"),
			"t", r.PathValue("tenant"), "uri", r.Form.Get("redirect_uri"), "s", r.Form.Get("scope"),
			"why", "The key was not found.", "tp", "0000", "more", "")
		if f.Status != 0 {
			e.status = f.Status
		}
		en.refuse(w, r, e)
		return
	}
	text := f.Text
	if text == "" {
		text = "The server is temporarily unavailable to service this request."
	}
	entraHeaders(w, newGUID())
	writeJSON(w, orStatus(f.Status, http.StatusServiceUnavailable),
		map[string]any{"error": f.Code, "error_description": text})
}

func writeHTML(w http.ResponseWriter, f *Fault) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(orStatus(f.Status, http.StatusBadGateway))
	fmt.Fprint(w, "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"+
		"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>Microsoft-Azure-Application-Gateway/v2</center>\r\n</body>\r\n</html>\r\n")
}

func writeBody(w http.ResponseWriter, f *Fault) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(orStatus(f.Status, http.StatusOK))
	io.WriteString(w, f.Body)
}

// writeBig begins like a success and goes on for n bytes.
func writeBig(w http.ResponseWriter, n int64) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if _, err := io.WriteString(w, `{"token_type":"Bearer","expires_in":3599,"access_token":"`); err != nil {
		return
	}
	chunk := bytes.Repeat([]byte("A"), 64<<10)
	for ; n > 0; n -= int64(len(chunk)) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
	io.WriteString(w, `"}`)
}

// drip writes a byte now and then until the client gives up.
func drip(w http.ResponseWriter, r *http.Request, every time.Duration) {
	if every <= 0 {
		every = time.Second
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		io.WriteString(w, " ")
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// cut lets h answer, and ends the connection in the middle of that.
func cut(w http.ResponseWriter, r *http.Request, f *Fault, h http.HandlerFunc) {
	rec := httptest.NewRecorder()
	h(rec, r)
	body := rec.Body.Bytes()
	maps.Copy(w.Header(), rec.Header())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(rec.Code)
	w.Write(body[:min(int64(len(body)), f.Bytes)])
	http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// edit lets h answer and changes members of its JSON.
func edit(w http.ResponseWriter, r *http.Request, f *Fault, h http.HandlerFunc) {
	rec := httptest.NewRecorder()
	h(rec, r)
	body := rec.Body.Bytes()
	var doc map[string]any
	if json.Unmarshal(body, &doc) == nil {
		for k, v := range f.Edit {
			if v == nil {
				delete(doc, k)
			} else {
				doc[k] = v
			}
		}
		body, _ = json.Marshal(doc)
	}
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(orStatus(f.Status, rec.Code))
	w.Write(body)
}
