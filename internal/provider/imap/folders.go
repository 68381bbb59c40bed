package imap

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// foldersMax is how many folders of a mailbox are looked at.
const foldersMax = 10_000

// A folder is one of the mailbox, as the server has it.
type folder struct {
	name   string // as people see it, "/" between its levels
	wire   string // as the server wrote it
	delim  string
	use    string
	closed bool // cannot be opened: it only holds others
}

// folderList is the folders that can be opened.
func (s *session) folderList(ctx context.Context) (list []provider.Folder, err error) {
	defer s.during(ctx, "imap-list", &err)()
	all, err := s.list()
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if !f.closed {
			list = append(list, provider.Folder{Name: f.name, Use: f.use})
		}
	}
	return list, nil
}

// list reads the live tree.
func (s *session) list() (all []folder, err error) {
	_, err = s.run(`LIST "" "*"`, func(r response) error {
		if r.kind != "LIST" {
			return nil
		}
		l, err := readList(r.rest)
		if err != nil {
			return err
		}
		if f, ok := l.folder(); ok {
			if len(all) >= foldersMax {
				return errFlood
			}
			all = append(all, f)
		}
		return nil
	})
	slices.SortStableFunc(all, func(a, b folder) int { return strings.Compare(a.rank(), b.rank()) })
	return all, err
}

// rank brings the inbox to the front.
func (f folder) rank() string {
	if f.use == "inbox" {
		return "\x00"
	}
	return f.name
}

// folder makes one of a LIST. A name that would break a command is nobody's.
func (l listed) folder() (folder, bool) {
	if l.wire == "" || len(l.wire) > 2<<10 || strings.ContainsAny(l.wire, "\r\n\x00") {
		return folder{}, false
	}
	f := folder{wire: l.wire, delim: l.delim, closed: slices.Contains(l.attrs, "noselect") || slices.Contains(l.attrs, "nonexistent")}
	levels := []string{l.wire}
	if l.delim != "" {
		levels = strings.Split(l.wire, l.delim)
	}
	for i, part := range levels {
		levels[i] = wire.Clean(decodeName(part), 1<<10)
	}
	f.name = strings.Join(levels, "/")
	if strings.EqualFold(f.name, "INBOX") {
		f.name, f.use = "INBOX", "inbox"
		return f, true
	}
	for _, a := range l.attrs {
		if use := attributes[a]; use != "" {
			f.use = use
		}
	}
	if f.use == "" && !f.closed {
		f.use = useOf(f.name)
	}
	return f, true
}

// attributes are those of RFC 6154. Exchange writes some of them into a plain
// LIST.
var attributes = map[string]string{"all": "all", "archive": "archive", "drafts": "drafts", "junk": "junk", "spam": "junk", "sent": "sent", "trash": "trash"}

// known are the names that servers give their own folders, where no attribute
// says it. They are in the language of the mailbox.
var known = map[string][]string{
	"sent": {"sent", "sent items", "sent mail", "sent messages", "gesendet", "gesendete elemente", "gesendete objekte", "éléments envoyés", "messages envoyés", "envoyés",
		"elementos enviados", "enviados", "itens enviados", "posta inviata", "inviata", "verzonden items", "verzonden", "skickat", "skickade objekt", "sendt post", "sendte elementer",
		"lähetetyt", "wysłane", "elementy wysłane", "odeslaná pošta", "elküldött elemek", "отправленные", "gönderilmiş öğeler", "送信済みアイテム", "送信済み", "已发送邮件", "已发送", "보낸 편지함"},
	"drafts": {"drafts", "draft", "entwürfe", "brouillons", "borradores", "rascunhos", "bozze", "concepten", "utkast", "kladder", "luonnokset", "wersje robocze", "koncepty", "piszkozatok",
		"черновики", "taslaklar", "下書き", "草稿", "임시 보관함"},
	"trash": {"trash", "deleted items", "deleted messages", "deleted", "bin", "gelöschte elemente", "gelöschte objekte", "papierkorb", "éléments supprimés", "corbeille", "elementos eliminados",
		"papelera", "itens excluídos", "lixo", "posta eliminata", "cestino", "verwijderde items", "prullenbak", "borttaget", "slettet post", "slettede elementer", "poistetut", "elementy usunięte",
		"kosz", "odstraněná pošta", "törölt elemek", "удаленные", "корзина", "silinmiş öğeler", "削除済みアイテム", "ゴミ箱", "已删除邮件", "已删除", "지운 편지함"},
	"junk": {"junk", "junk email", "junk e-mail", "spam", "bulk mail", "junk-e-mail", "junkmail", "courrier indésirable", "correo no deseado", "lixo eletrônico", "posta indesiderata",
		"ongewenste e-mail", "skräppost", "søppelpost", "uønsket mail", "roskaposti", "wiadomości-śmieci", "nevyžádaná pošta", "levélszemét", "нежелательная почта", "спам",
		"önemsiz e-posta", "迷惑メール", "垃圾邮件", "정크 메일"},
	"archive": {"archive", "archives", "archiv", "archivo", "arquivo", "arquivo morto", "archivio", "archief", "arkiv", "arkisto", "archiwum", "архив", "arşiv", "アーカイブ", "存档", "归档", "보관"},
}

var uses = func() map[string]string {
	m := map[string]string{}
	for use, names := range known {
		m[use] = use
		for _, n := range names {
			m[n] = use
		}
	}
	return m
}()

// useOf guesses by the name. Below INBOX stand the own folders of some servers.
func useOf(name string) string {
	return uses[strings.TrimPrefix(strings.ToLower(name), "inbox/")]
}

// find is the folder that a person means. The closest match wins: its name to
// the letter, as the server writes it, in any case, below the inbox where the
// server has all there, and at last the one of the same use, in any language.
func find(all []folder, want string) (folder, bool) {
	want = strings.Trim(want, "/")
	if want == "" {
		want = "INBOX"
	}
	low := strings.ToLower(want)
	use := useOf(want)
	for _, fits := range []func(folder) bool{
		func(f folder) bool { return f.name == want },
		func(f folder) bool { return f.wire == want },
		func(f folder) bool { return strings.ToLower(f.name) == low },
		func(f folder) bool { return strings.ToLower(f.name) == "inbox/"+low },
		func(f folder) bool { return use != "" && f.use == use && !f.closed },
		func(f folder) bool { return low == f.use && !f.closed },
	} {
		if i := slices.IndexFunc(all, fits); i >= 0 {
			return all[i], true
		}
	}
	if low == "inbox" { // RFC 3501 section 5.1: it is always there
		return folder{name: "INBOX", wire: "INBOX", use: "inbox"}, true
	}
	return folder{}, false
}

// choose finds the folders to be read, each once.
func choose(all []folder, wanted []string) (list []folder, err error) {
	if len(wanted) == 0 {
		wanted = []string{"INBOX"}
	}
	for _, want := range wanted {
		f, ok := find(all, want)
		if !ok {
			return nil, absent(all, want)
		}
		if f.closed {
			return nil, misset(fmt.Sprintf("the folder %q of the mailbox holds only other folders", want), "choose one of: "+names(all))
		}
		if !slices.ContainsFunc(list, func(g folder) bool { return g.wire == f.wire }) {
			list = append(list, f)
		}
	}
	return list, nil
}

func absent(all []folder, want string) error {
	return misset(fmt.Sprintf("the mailbox has no folder %q", want), "choose one of: "+names(all))
}

// misset is the error of a mailbox's own settings.
func misset(message, fix string) error {
	message, fix = wire.Clean(message, 300), wire.Clean(fix, 2<<10)
	return mailgrant.Errorf(mailgrant.Misset, nil, "%s", message).Fix("%s", fix).With(mailgrant.Finding{Cause: "endpoint-misconfigured", Title: "Folder that cannot be used",
		Sentence: strings.ToUpper(message[:1]) + message[1:] + ".", Remedy: strings.ToUpper(fix[:1]) + fix[1:] + ".",
		Who: mailgrant.WhoOperator, Retry: mailgrant.RetryFix, Confidence: 1, Link: "errors/endpoint-misconfigured"})
}

// names are the folders one can choose from.
func names(all []folder) string {
	var list []string
	for _, f := range all {
		if f.closed {
			continue
		}
		if len(list) == 30 {
			list = append(list, "…")
			break
		}
		list = append(list, f.name)
	}
	if len(list) == 0 {
		return "INBOX"
	}
	return strings.Join(list, ", ")
}
