package microsoft

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// A mailFolder is one of Graph's.
type mailFolder struct {
	ID       string `json:"id"`
	Name     string `json:"displayName"`
	Children int    `json:"childFolderCount"`
}

// wellKnown are the folders that Graph finds by a name of its own, in whatever
// language the mailbox is: as people write them, Graph's name, and our word.
var wellKnown = []struct {
	names []string
	graph string
	use   string
}{
	{[]string{"inbox"}, "inbox", "inbox"},
	{[]string{"sent items", "sentitems", "sent"}, "sentitems", "sent"},
	{[]string{"drafts"}, "drafts", "drafts"},
	{[]string{"deleted items", "deleteditems", "trash"}, "deleteditems", "trash"},
	{[]string{"junk email", "junkemail", "junk", "spam"}, "junkemail", "junk"},
	{[]string{"archive"}, "archive", "archive"},
}

const (
	foldersMax = 2000 // of one mailbox
	depthMax   = 20   // of folders in folders
	folderPage = "100"
)

// folder finds one by its name: well-known, or its display name, with "/" between
// levels. A "/" may also stand in a name itself.
func (a *api) folder(ctx context.Context, name string) (mailFolder, error) {
	f, rest, err := a.begin(ctx, name)
	if err != nil || f.ID != "" && rest == "" {
		return f, err
	}
	found, err := a.below(ctx, f, rest, 0)
	if err == nil && found.ID == "" {
		err = mailgrant.Errorf(mailgrant.Misset, nil, "the mailbox %s has no folder %q", a.way.Mailbox.Address, name).
			Fix("use a folder that it has; they are shown by: mailgrant check %s", a.way.Mailbox.Address).At("folders")
	}
	return found, err
}

// begin resolves a first level that is well known. Without one, all of the name is
// left.
func (a *api) begin(ctx context.Context, name string) (mailFolder, string, error) {
	first, rest, _ := strings.Cut(name, "/")
	for _, w := range wellKnown {
		if slices.Contains(w.names, strings.ToLower(first)) {
			f, found, err := a.get(ctx, w.graph)
			if err != nil || found {
				return f, rest, err
			}
			break
		}
	}
	return mailFolder{}, name, nil
}

// get reads one folder by its id or well-known name. Not every mailbox has an
// archive.
func (a *api) get(ctx context.Context, id string) (f mailFolder, found bool, err error) {
	c := a.call("graph-open", "GET", a.base+"/mailFolders/"+url.PathEscape(id)+query("$select", "id,displayName,childFolderCount"))
	ans, err := a.do(ctx, c, &f, http.StatusOK)
	if ans != nil && ans.Status == http.StatusNotFound && noSuchItem(ans.Body) {
		return f, false, nil
	}
	if err == nil && f.ID == "" {
		err = a.strange(c, "the folder has no id")
	}
	return f, err == nil, err
}

// noSuchItem tells a folder or message that is not there from a mailbox that is
// not.
func noSuchItem(body []byte) bool {
	s := string(body)
	return strings.Contains(s, "ErrorItemNotFound") || strings.Contains(s, "ErrorFolderNotFound")
}

// below finds a name among the folders in f, or in those below.
func (a *api) below(ctx context.Context, f mailFolder, name string, depth int) (mailFolder, error) {
	if depth > depthMax {
		return mailFolder{}, nil
	}
	list, err := a.children(ctx, f.ID)
	if err != nil {
		return mailFolder{}, err
	}
	for _, child := range list {
		if strings.EqualFold(child.Name, name) {
			return child, nil
		}
	}
	for _, child := range list {
		rest, ok := cutFold(name, child.Name+"/")
		if !ok || rest == "" {
			continue
		}
		if found, err := a.below(ctx, child, rest, depth+1); err != nil || found.ID != "" {
			return found, err
		}
	}
	return mailFolder{}, nil
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// children lists the folders in one, or at the top.
func (a *api) children(ctx context.Context, id string) ([]mailFolder, error) {
	at := a.base + "/mailFolders"
	if id != "" {
		at += "/" + url.PathEscape(id) + "/childFolders"
	}
	at += query("$select", "id,displayName,childFolderCount", "$top", folderPage)
	var all []mailFolder
	for at != "" && len(all) < foldersMax {
		var page struct {
			Value []mailFolder `json:"value"`
			Next  string       `json:"@odata.nextLink"`
		}
		c := a.call("graph-folders", "GET", at)
		if _, err := a.do(ctx, c, &page, http.StatusOK); err != nil {
			return nil, err
		}
		if page.Next != "" && (!a.ours(page.Next) || len(page.Value) == 0) {
			return nil, a.strange(c, "the link to go on with leads elsewhere")
		}
		all, at = append(all, page.Value...), page.Next
	}
	return all, nil
}

// make finds a folder or makes it, with all that leads to it.
func (a *api) make(ctx context.Context, name string) (mailFolder, error) {
	f, rest, err := a.begin(ctx, name)
	if err != nil {
		return f, err
	}
	if rest != "" {
		found, err := a.below(ctx, f, rest, 0)
		if err != nil || found.ID != "" {
			return found, err
		}
	}
	for depth := 0; rest != ""; depth++ {
		if depth > depthMax {
			return f, mailgrant.Errorf(mailgrant.Misset, nil, "the folder %q lies too deep", name).Fix("name one that lies higher").At("move_to")
		}
		var level string
		level, rest, _ = strings.Cut(rest, "/")
		next, err := a.below(ctx, f, level, depthMax)
		if err == nil && next.ID == "" {
			next, err = a.create(ctx, f.ID, level)
		}
		if err != nil {
			return f, err
		}
		f = next
	}
	return f, nil
}

func (a *api) create(ctx context.Context, parent, name string) (f mailFolder, err error) {
	at := a.base + "/mailFolders"
	if parent != "" {
		at += "/" + url.PathEscape(parent) + "/childFolders"
	}
	c := withJSON(a.call("graph-folders", "POST", at), map[string]string{"displayName": name})
	if _, err = a.do(ctx, c, &f, http.StatusCreated); err == nil && f.ID == "" {
		err = a.strange(c, "the new folder has no id")
	}
	return f, err
}

// folders are all of a mailbox, each behind the one that it lies in.
func folders(ctx context.Context, w provider.Way) ([]provider.Folder, error) {
	a, err := newAPI(w)
	if err != nil {
		return nil, err
	}
	uses := map[string]string{}
	for _, k := range wellKnown {
		f, found, err := a.get(ctx, k.graph)
		if err != nil {
			return nil, err
		}
		if found {
			uses[f.ID] = k.use
		}
	}
	return a.tree(ctx, uses, mailFolder{Children: 1}, "", nil, 0)
}

func (a *api) tree(ctx context.Context, uses map[string]string, in mailFolder, path string, all []provider.Folder, depth int) ([]provider.Folder, error) {
	if in.Children == 0 || depth > depthMax || len(all) >= foldersMax {
		return all, nil
	}
	list, err := a.children(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		all = append(all, provider.Folder{Name: path + f.Name, Use: uses[f.ID]})
		if all, err = a.tree(ctx, uses, f, path+f.Name+"/", all, depth+1); err != nil {
			return nil, err
		}
	}
	return all, nil
}
