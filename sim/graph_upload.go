package sim

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// An upload is a session in which a large file is put to a draft in slices.
// Its address is the permission: it comes without a token.
type upload struct {
	key     string // app and mailbox
	mailbox *Mailbox
	call    *graphCall
	draft   string
	file    file
	size    int64
	last    int64 // where the last slice began
	made    time.Time
	done    bool
}

// createUpload opens a session for one file.
func (c *graphCall) createUpload() *graphError {
	if _, e := c.theDraft(); e != nil {
		return e
	}
	var req struct {
		AttachmentItem struct {
			AttachmentType string
			Name           string
			Size           int64
			ContentType    string
			ContentID      string
			IsInline       bool
		}
	}
	if e := c.readJSON(&req); e != nil {
		return e
	}
	item, k := req.AttachmentItem, c.v.Knobs
	switch {
	case !strings.EqualFold(item.AttachmentType, "file"):
		return badRequest("Only attachments of the type 'file' can be uploaded here.")
	case item.Name == "" || item.Size <= 0:
		return badRequest("Required property 'name' or 'size' is missing in the payload.")
	case k.UploadMin > 0 && item.Size < k.UploadMin:
		return &graphError{status: 400, code: "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize",
			text: "The size of the attachment is less than the minimum size for an upload session."}
	case over(item.Size, k.UploadMax):
		return &graphError{status: 400, code: "ErrorMessageSizeExceeded", text: graphSizeText}
	}
	g, id, now := c.g, newSecretText()+newSecretText(), c.g.sim.Now()
	u := &upload{key: c.limitKey(), mailbox: c.mailbox, call: c, draft: c.args["id"], size: item.Size, last: -1, made: now,
		file: file{Name: oneLine(item.Name), Type: item.ContentType, ContentID: item.ContentID, Inline: item.IsInline}}
	g.mu.Lock()
	for id, old := range g.uploads {
		if old.expired(g, now) {
			delete(g.uploads, id)
		}
	}
	g.uploads[id] = u
	g.mu.Unlock()
	doc := u.state(g)
	doc["@odata.context"] = c.context("microsoft.graph.uploadSession")
	doc["uploadUrl"] = g.base(c.Request) + "/upload/" + id
	c.json(http.StatusCreated, doc)
	return nil
}

func (u *upload) ends(g *graph) time.Time {
	return u.made.Add(time.Duration(g.sim.world.now.Load().Knobs.UploadLife))
}

func (u *upload) expired(g *graph, now time.Time) bool { return now.After(u.ends(g)) }

func (u *upload) state(g *graph) map[string]any {
	next := []string{}
	if !u.done {
		next = append(next, fmt.Sprintf("%d-", len(u.file.Data)))
	}
	return map[string]any{"expirationDateTime": u.ends(g).UTC().Format("2006-01-02T15:04:05.0000000Z"), "nextExpectedRanges": next}
}

// upload takes a slice, says how far the file has come, or gives it up.
func (g *graph) upload(w http.ResponseWriter, r *http.Request) {
	g.sim.counts.add("graph.upload")
	id := r.PathValue("id")
	g.mu.Lock()
	u := g.uploads[id]
	g.mu.Unlock()
	var about []string
	if u != nil {
		about = []string{u.mailbox.Address, u.call.tok.AppID}
	}
	g.sim.faults.strike(w, r, g.sim.faults.take("graph.upload", about...), func(w http.ResponseWriter, r *http.Request) {
		if e := g.uploadStep(w, r, id, u); e != nil {
			g.refuse(w, e)
		}
	}, g.faultStatus)
}

func (g *graph) uploadStep(w http.ResponseWriter, r *http.Request, id string, u *upload) *graphError {
	switch {
	case u == nil || u.expired(g, g.sim.Now()):
		return itemNotFound()
	case r.Header.Get("Authorization") != "":
		// The address is of Exchange and the token of Graph.
		return &graphError{status: 401, code: "InvalidAuthenticationToken", text: "Access token validation failure. Invalid audience."}
	}
	switch r.Method {
	case http.MethodGet:
		g.mu.Lock()
		defer g.mu.Unlock()
		writeJSON(w, http.StatusOK, u.state(g))
	case http.MethodDelete:
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPut:
		return g.slice(w, r, id, u)
	default:
		return &graphError{status: 405, code: "Request_BadRequest", text: "Specified HTTP method is not allowed for the request target."}
	}
	return nil
}

// slice takes one slice. Slices come in order; the last one may come again,
// for its answer may have been lost.
func (g *graph) slice(w http.ResponseWriter, r *http.Request, id string, u *upload) *graphError {
	k := g.sim.world.now.Load().Knobs
	from, to, total, ok := contentRange(r.Header.Get("Content-Range"))
	if !ok {
		return badRequest("The Content-Range header is missing or malformed.")
	}
	c := &graphCall{Request: r, g: g, w: w}
	body, e := c.readBody(k.UploadSlice)
	if e != nil {
		return e
	}
	if total != u.size || to-from+1 != int64(len(body)) {
		return badRequest("The Content-Range header does not fit the size of the file or of the body.")
	}
	g.mu.Lock()
	have, again := int64(len(u.file.Data)), u.last == from && to == int64(len(u.file.Data))-1
	if from != have && !again || u.done && !again {
		doc := u.state(g)
		g.mu.Unlock()
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", u.size))
		return &graphError{status: 416, code: "ErrorInvalidRange", text: fmt.Sprintf("The range is not the next one: %v", doc["nextExpectedRanges"])}
	}
	if !again {
		if !book(g.sent, u.key, g.sim.Now(), 5*time.Minute, len(body), int(k.GraphUpload)) {
			g.mu.Unlock()
			g.sim.counts.add("graph.429")
			return &graphError{status: 429, code: "ApplicationThrottled", text: "Too many bytes were uploaded in five minutes.", retry: time.Duration(k.GraphRetryAfter)}
		}
		u.last, u.file.Data = from, append(u.file.Data, body...)
	}
	complete, doc := int64(len(u.file.Data)) == u.size, u.state(g)
	first := complete && !u.done
	u.done = u.done || complete
	g.mu.Unlock()
	if !complete {
		writeJSON(w, http.StatusOK, doc)
		return nil
	}
	return g.endUpload(w, r, u, first)
}

// endUpload puts the whole file to its draft.
func (g *graph) endUpload(w http.ResponseWriter, r *http.Request, u *upload, first bool) *graphError {
	at := ""
	if first {
		a, e := u.call.addFile(u.draft, u.file)
		if e != nil {
			return e
		}
		at = a.id
	}
	w.Header().Set("Location", g.base(r)+"/v1.0/users/"+u.mailbox.Address+"/messages/"+u.draft+"/attachments/"+at)
	w.WriteHeader(http.StatusCreated)
	return nil
}

// contentRange reads "bytes 0-99/1000".
func contentRange(h string) (from, to, total int64, ok bool) {
	n, err := fmt.Sscanf(strings.TrimSpace(h), "bytes %d-%d/%d", &from, &to, &total)
	return from, to, total, err == nil && n == 3 && from >= 0 && to >= from && to < total
}
