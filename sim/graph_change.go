package sim

import (
	"net/http"
	"strings"
)

// What changes messages and folders, and the ids that change with them.

// update changes what a reader may change: whether a message is read or
// flagged.
func (c *graphCall) update() *graphError {
	m, e := c.message()
	if e != nil {
		return e
	}
	var req struct {
		IsRead *bool
		Flag   *struct{ FlagStatus string }
	}
	if e := c.readJSON(&req); e != nil {
		return e
	}
	found := c.g.sim.mail.with(c.mailbox.Address, m.ImmutableID, func(m *Message) {
		changed := false
		if req.IsRead != nil {
			changed = m.flag(FlagSeen, *req.IsRead)
		}
		if req.Flag != nil {
			changed = m.flag(`\Flagged`, strings.EqualFold(req.Flag.FlagStatus, "flagged")) || changed
		}
		if changed {
			c.g.sim.mail.tell(itChanged, m)
		}
	})
	if m, ok := c.g.sim.mail.find(c.mailbox.Address, m.ImmutableID); found && ok {
		c.json(http.StatusOK, c.messageJSON(m))
		return nil
	}
	return itemNotFound()
}

func (m *Message) flag(flag string, on bool) bool {
	if on {
		return m.addFlags(flag)
	}
	return m.dropFlags(flag)
}

// move is move and copy.
func (c *graphCall) move() *graphError {
	m, e := c.message()
	if e != nil {
		return e
	}
	var req struct{ DestinationID string }
	if e := c.readJSON(&req); e != nil {
		return e
	}
	p := c.g.sim.mail
	p.mu.Lock()
	b := p.box(c.mailbox.Address)
	to, live := b.byKey(req.DestinationID), b.byID[m.ImmutableID]
	if to == nil || live == nil {
		p.mu.Unlock()
		return itemNotFound()
	}
	if strings.HasSuffix(c.route.path, "/copy") {
		twin := *live
		twin.ID, twin.ImmutableID = "", ""
		live = p.file(to, twin)
	} else {
		p.move(live, to)
	}
	m = *live
	p.mu.Unlock()
	c.json(http.StatusCreated, c.messageJSON(m))
	return nil
}

const maxDisplayName = 255

// createFolder makes a folder at the top, or below the one of the path.
func (c *graphCall) createFolder() *graphError {
	var req struct{ DisplayName string }
	if e := c.readJSON(&req); e != nil {
		return e
	}
	if req.DisplayName == "" || len(req.DisplayName) > maxDisplayName || strings.Contains(req.DisplayName, "/") {
		return badRequest("The property 'displayName' is required in the request.")
	}
	p := c.g.sim.mail
	p.mu.Lock()
	b := p.box(c.mailbox.Address)
	name := req.DisplayName
	if key := c.args["folder"]; key != "" {
		above := b.byKey(key)
		if above == nil {
			p.mu.Unlock()
			return itemNotFound()
		}
		name = above.name + "/" + name
	}
	if b.folder(name) != nil {
		p.mu.Unlock()
		return &graphError{status: http.StatusConflict, code: "ErrorFolderExists", text: "A folder with the specified name already exists."}
	}
	made := p.makeFolder(b, name)
	if made == nil {
		p.mu.Unlock()
		return badRequest("The folder lies too deep.")
	}
	doc := folderJSON(made)
	p.mu.Unlock()
	c.json(http.StatusCreated, doc)
	return nil
}

// translateIDs turns ids of one kind into those of the other.
func (c *graphCall) translateIDs() *graphError {
	var req struct {
		InputIDs                   []string
		SourceIDType, TargetIDType string
	}
	if e := c.readJSON(&req); e != nil {
		return e
	}
	kinds := []string{"restId", "restImmutableEntryId"}
	if !containsFold(kinds, req.SourceIDType) || !containsFold(kinds, req.TargetIDType) {
		return badRequest("Only restId and restImmutableEntryId are translated here.")
	}
	var docs []map[string]any
	for _, id := range req.InputIDs {
		m, ok := c.g.sim.mail.find(c.mailbox.Address, id)
		if !ok {
			docs = append(docs, map[string]any{"sourceId": id, "errorDetails": map[string]string{"code": "ErrorItemNotFound", "message": itemNotFound().text}})
			continue
		}
		target := m.ID
		if strings.EqualFold(req.TargetIDType, kinds[1]) {
			target = m.ImmutableID
		}
		docs = append(docs, map[string]any{"sourceId": id, "targetId": target})
	}
	c.json(http.StatusOK, pageOf(c.context("Collection(microsoft.graph.convertIdResult)"), docs))
	return nil
}
