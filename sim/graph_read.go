package sim

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// user shows a user: oneself, or the one in the path.
func (c *graphCall) user() *graphError {
	if c.key == "" {
		c.json(http.StatusOK, c.pick(c.userJSON(c.caller)))
		return nil
	}
	if at, ok := c.v.users[strings.ToLower(c.key)]; ok && at.tenant == c.tenant && !at.item.Deleted {
		c.json(http.StatusOK, c.pick(c.userJSON(at.item)))
		return nil
	}
	for _, m := range c.tenant.Mailboxes {
		if m.Shared && (m.goesBy(c.key) || strings.EqualFold(m.objectID(), c.key)) {
			c.json(http.StatusOK, c.pick(c.userJSON(m.asUser())))
			return nil
		}
	}
	return &graphError{status: 404, code: "Request_ResourceNotFound",
		text: "Resource '" + c.key + "' does not exist or one of its queried reference-property objects are not present."}
}

// asUser is the disabled account that stands behind a shared mailbox.
func (m *Mailbox) asUser() *User {
	return &User{ID: m.objectID(), Address: m.Address, Name: m.Name, Disabled: true}
}

func (c *graphCall) userJSON(u *User) map[string]any {
	given, family, _ := strings.Cut(u.Name, " ")
	doc := map[string]any{
		"@odata.context": c.context("users/$entity"),
		"id":             u.ID, "displayName": u.Name, "givenName": given, "surname": family, "mail": u.Address,
		"userPrincipalName": u.upn(), "businessPhones": []string{}, "jobTitle": nil, "mobilePhone": nil,
		"officeLocation": nil, "preferredLanguage": "en",
	}
	extra := map[string]any{
		"accountEnabled": !u.Disabled, "userType": "Member",
		"proxyAddresses": proxyAddresses(u), "otherMails": []string{},
	}
	wanted := trimAll(strings.Split(c.URL.Query().Get("$select"), ","))
	for k, v := range extra { // Graph shows these only when they are asked for
		if containsFold(wanted, k) {
			doc[k] = v
		}
	}
	return doc
}

func proxyAddresses(u *User) []string {
	list := []string{"SMTP:" + u.Address}
	for _, a := range u.Aliases {
		list = append(list, "smtp:"+a)
	}
	return list
}

// users lists the people of the tenant and its shared mailboxes.
func (c *graphCall) users() *graphError {
	var all []*User
	for _, u := range c.tenant.Users {
		if !u.Deleted {
			all = append(all, u)
		}
	}
	for _, m := range c.tenant.Mailboxes {
		if _, person := c.v.users[strings.ToLower(m.Address)]; m.Shared && !person {
			all = append(all, m.asUser())
		}
	}
	keep, e := filterUsers(c.URL.Query().Get("$filter"))
	if e != nil {
		return e
	}
	all = slices.DeleteFunc(all, func(u *User) bool { return !keep(u) })
	return c.page("users", len(all), func(i int) map[string]any { return c.pick(c.userJSON(all[i])) })
}

// page shows of a list what $top and $skip say, and links to the rest.
func (c *graphCall) page(of string, total int, item func(int) map[string]any) *graphError {
	q := c.URL.Query()
	top, skip := 10, 0
	if of == "users" {
		top = 100
	}
	for name, to := range map[string]*int{"$top": &top, "$skip": &skip} {
		if text := q.Get(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 || name == "$top" && (n < 1 || n > 1000) {
				return badRequest("Invalid value '" + text + "' for " + name + " query option found.")
			}
			*to = n
		}
	}
	skip = min(skip, total)
	items := []map[string]any{}
	for i := skip; i < min(skip+top, total); i++ {
		doc := item(i)
		delete(doc, "@odata.context")
		items = append(items, doc)
	}
	doc := pageOf(c.context(of), items)
	if skip+top < total {
		q.Set("$skip", strconv.Itoa(skip+top))
		doc["@odata.nextLink"] = c.g.base(c.Request) + c.URL.Path + "?" + q.Encode()
	}
	if strings.EqualFold(q.Get("$count"), "true") {
		doc["@odata.count"] = total
	}
	c.json(http.StatusOK, doc)
	return nil
}

// message finds the message of the path.
func (c *graphCall) message() (Message, *graphError) {
	id := c.args["id"]
	if len(id) < 40 || strings.ContainsAny(id, " \r\n'") {
		return Message{}, &graphError{status: 400, code: "ErrorInvalidIdMalformed", text: "Id is malformed."}
	}
	m, ok := c.g.sim.mail.find(c.mailbox.Address, id)
	if !ok {
		return m, itemNotFound()
	}
	return m, nil
}

func itemNotFound() *graphError {
	return &graphError{status: 404, code: "ErrorItemNotFound", text: "The specified object was not found in the store."}
}

func (c *graphCall) get() *graphError {
	m, e := c.message()
	if e != nil {
		return e
	}
	c.json(http.StatusOK, c.pick(c.messageJSON(m)))
	return nil
}

// getMIME is $value: the message as it lies there.
func (c *graphCall) getMIME() *graphError {
	m, e := c.message()
	if e != nil {
		return e
	}
	c.w.Header().Set("Content-Type", "text/plain")
	c.w.Write(m.Raw)
	return nil
}

func (c *graphCall) delete() *graphError {
	m, e := c.message()
	if e != nil {
		return e
	}
	c.g.sim.mail.remove(m.Mailbox, m.ID)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *graphCall) attachments() *graphError {
	m, e := c.message()
	if e != nil {
		return e
	}
	var list []attached
	if m.draft != nil {
		list = m.draft.files
	} else {
		for i, f := range readMessage(m.Raw).Files {
			list = append(list, attached{folderID(c.mailbox.Address, m.ImmutableID+strconv.Itoa(i)), f})
		}
	}
	var items []map[string]any
	for _, a := range list {
		items = append(items, a.json(m.At, true))
	}
	c.json(http.StatusOK, pageOf(c.context("users('"+c.mailbox.Address+"')/messages('"+m.ID+"')/attachments"), items))
	return nil
}

// folderOf finds the folder of the path by its well-known name or its id.
func (c *graphCall) folderOf() (*folder, *graphError) {
	p := c.g.sim.mail
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.box(c.mailbox.Address).byKey(c.args["folder"])
	if found == nil {
		return nil, itemNotFound()
	}
	return found, nil
}

// byKey finds a folder by its well-known name or its id.
func (b *box) byKey(key string) *folder {
	if f := b.byFolderID(key); f != nil {
		return f
	}
	return b.byUse(strings.ToLower(key))
}

func folderJSON(f *folder) map[string]any {
	i, parent := f.info(), folderID(f.box.address, "msgfolderroot")
	name := f.name
	if at := strings.LastIndexByte(name, '/'); at >= 0 {
		parent, name = f.box.folder(name[:at]).id, name[at+1:]
	}
	return map[string]any{"id": f.id, "displayName": name, "parentFolderId": parent, "childFolderCount": len(f.box.below(f)),
		"unreadItemCount": i.Unread, "totalItemCount": i.Count, "sizeInBytes": f.size(), "isHidden": false}
}

func (f *folder) size() (n int) {
	for _, m := range f.list {
		n += len(m.Raw)
	}
	return n
}

// folders lists those at the top, or below the one of the path.
func (c *graphCall) folders() *graphError {
	p := c.g.sim.mail
	p.mu.Lock()
	b := p.box(c.mailbox.Address)
	list := b.top()
	if key := c.args["folder"]; key != "" {
		f := b.byKey(key)
		if f == nil {
			p.mu.Unlock()
			return itemNotFound()
		}
		list = b.below(f)
	}
	docs := make([]map[string]any, len(list))
	for i, f := range list {
		docs[i] = folderJSON(f)
	}
	p.mu.Unlock()
	return c.page("users('"+c.mailbox.Address+"')/mailFolders", len(docs), func(i int) map[string]any { return c.pick(docs[i]) })
}

func (c *graphCall) folder() *graphError {
	p := c.g.sim.mail
	p.mu.Lock()
	f := p.box(c.mailbox.Address).byKey(c.args["folder"])
	if f == nil {
		p.mu.Unlock()
		return itemNotFound()
	}
	doc := folderJSON(f)
	p.mu.Unlock()
	doc["@odata.context"] = c.context("users('" + c.mailbox.Address + "')/mailFolders/$entity")
	c.json(http.StatusOK, c.pick(doc))
	return nil
}

// find lists the messages of a folder or of all, the newest first, and looks
// one up by its Message-ID.
func (c *graphCall) find() *graphError {
	name := ""
	if c.args["folder"] != "" {
		f, e := c.folderOf()
		if e != nil {
			return e
		}
		name = f.name
	}
	keep, e := filterMessages(c.URL.Query().Get("$filter"))
	if e != nil {
		return e
	}
	list := c.g.sim.mail.list(c.mailbox.Address, name)
	list = slices.DeleteFunc(list, func(m Message) bool { return !keep(m) })
	if e := order(list, c.URL.Query().Get("$orderby")); e != nil {
		return e
	}
	return c.page("users('"+c.mailbox.Address+"')/messages", len(list), func(i int) map[string]any { return c.pick(c.messageJSON(list[i])) })
}

// order sorts messages by when they were received, the newest first unless it
// is asked otherwise.
func order(list []Message, by string) *graphError {
	slices.Reverse(list)
	switch strings.ToLower(strings.Join(strings.Fields(by), " ")) {
	case "", "receiveddatetime desc":
		slices.SortStableFunc(list, func(a, b Message) int { return b.At.Compare(a.At) })
	case "receiveddatetime", "receiveddatetime asc":
		slices.Reverse(list)
		slices.SortStableFunc(list, func(a, b Message) int { return a.At.Compare(b.At) })
	default:
		return badRequest("The property in '" + by + "' cannot be sorted by here.")
	}
	return nil
}

// userInfo is the endpoint of OpenID Connect, which lies beside Graph.
func (g *graph) userInfo(w http.ResponseWriter, r *http.Request) {
	c := &graphCall{Request: r, g: g, w: w, v: g.sim.world.now.Load()}
	h := func(w http.ResponseWriter, _ *http.Request) {
		c.w = w
		e := c.authenticate()
		if e == nil && (c.caller == nil || !c.hasScope([]string{"openid"})) {
			denied := errPrivileges
			e = &denied
		}
		if e != nil {
			c.refuse(e)
			return
		}
		g.sim.counts.add("userinfo")
		given, family, _ := strings.Cut(c.caller.Name, " ")
		writeJSON(w, http.StatusOK, map[string]any{"sub": pairwise(c.tok.ObjectID, c.tok.AppID), "name": c.caller.Name,
			"given_name": given, "family_name": family, "email": c.caller.Address,
			"picture": g.base(r) + "/v1.0/me/photo/$value"})
	}
	g.sim.faults.strike(w, r, g.sim.faults.take("userinfo", c.about()...), h, g.faultStatus)
}

// base is the address under which a client reached Graph.
func (g *graph) base(r *http.Request) string {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	if isGraphHost(r.Host) {
		return scheme + r.Host
	}
	return scheme + r.Host + "/graph"
}
