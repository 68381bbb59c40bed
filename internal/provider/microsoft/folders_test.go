package microsoft

import (
	"slices"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestFoldersByName(t *testing.T) {
	g := newMailGraph(t)
	w := g.way(mailgrant.MailboxOwn, mailgrant.FlowCode)
	for name, id := range map[string]string{"Inbox": "f-in", "inbox": "f-in", "posteingang": "f-in", "Sent Items": "f-sent", "aufträge": "f-a", "Aufträge/2026/27": "f-a1", "Aufträge/2026/27/Neu": "f-a2"} {
		k := &keeper{t, map[string]bool{}, nil}
		r := k.reading()
		r.Folders = []string{name, name}
		in := openMail(t, w, r)
		g.requests()
		if to, _, err := in.Next(t.Context(), "", k.take); err != nil || !strings.Contains(string(to), id) || len(g.requests()) != 1 {
			t.Errorf("%s: got %s, %v", name, to, err)
		}
	}
	for _, name := range []string{"nowhere", "Aufträge/x", "Archive", "inbox/x", "Aufträge/2026"} {
		_, err := Reader(ReadConfig{}).Open(t.Context(), w, provider.Reading{Folders: []string{name}})
		if e := mailgrant.AsError(err); e == nil || e.Code != mailgrant.Misset || e.Remedy == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	list, err := Reader(ReadConfig{}).Folders(t.Context(), w)
	want := []provider.Folder{{Name: "Posteingang", Use: "inbox"}, {Name: "Gesendet", Use: "sent"}, {Name: "Papierkorb", Use: "trash"}, {Name: "Aufträge"}, {Name: "Aufträge/2026/27"}, {Name: "Aufträge/2026/27/neu"}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestSeveralFolders(t *testing.T) {
	g := newMailGraph(t)
	g.put("a", "f-in", "x", 0)
	g.put("b", "f-a", "y", 0)
	k := &keeper{t, map[string]bool{}, nil}
	r := k.reading()
	r.Folders = []string{"Inbox", "Aufträge"}
	in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), r)
	var at provider.Cursor
	if got := k.all(in, &at); got != "a=x b=y" {
		t.Errorf("got %q", got)
	}
	if err := in.Done(t.Context(), []string{"a"}, mailgrant.AfterMove, "Aufträge"); err != nil {
		t.Error(err)
	}
	g.requests()
	if got := k.all(in, &at); got != "" || len(g.requests()) != 2 { // moved, and known by the same id
		t.Errorf("got %q", got)
	}
}
