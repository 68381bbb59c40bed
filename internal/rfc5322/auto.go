package rfc5322

import "strings"

// autoSigns are what a header says of whether a person wrote the message.
type autoSigns struct {
	submitted  string // Auto-Submitted, RFC 3834
	precedence string
	suppress   bool // X-Auto-Response-Suppress: a program does not want an answer
	list       bool
	reply      bool // a program says that it answered
	machine    bool // weaker signs, that count together with the subject
	nobody     bool // it comes from <>
	report     bool
	bounce     bool
	subject    string
}

func (a *autoSigns) field(k fieldKind, v string) {
	low := strings.ToLower(strings.TrimSpace(v))
	switch k {
	case fAutoSubmitted:
		w := firstWord(low)
		if a.submitted == "" {
			a.submitted = w
		}
	case fPrecedence:
		if a.precedence == "" {
			a.precedence = firstWord(low)
		}
	case fSuppress:
		for w := range strings.SplitSeq(low, ",") {
			switch strings.TrimSpace(w) {
			case "all", "oof", "autoreply":
				a.suppress = true
			}
		}
	case fListID:
		a.list = true
	case fAutoReply:
		a.reply = a.reply || low != "" && low != "no" && low != "false"
	case fMachine:
		a.machine = true
	case fReturnPath:
		a.nobody = a.nobody || strings.ReplaceAll(low, " ", "") == "<>"
	}
}

// word is what kind of program wrote it; "" means that it was a person, as far
// as can be seen. A subject counts only where the header has a sign as well:
// people write "out of office" too.
func (a *autoSigns) word() string {
	away := absent(a.subject)
	switch a.submitted {
	case "", "no":
	case "auto-replied", "auto-notified":
		return a.submitted
	case "auto-generated":
		if away {
			return "auto-replied"
		}
		return a.submitted
	default:
		return "auto-generated" // a word of the future, RFC 3834 section 5.1
	}
	switch {
	case a.reply, a.precedence == "auto_reply", a.bounce, away && (a.suppress || a.machine || a.nobody || a.precedence != ""):
		return "auto-replied"
	case a.list, a.precedence == "list":
		return "list"
	case a.precedence == "bulk", a.precedence == "junk":
		return a.precedence
	case a.suppress, a.report:
		return "auto-generated"
	}
	return ""
}

// absences begin the subjects of mail that tells that somebody is away.
var absences = []string{"automatic reply", "auto reply", "autoreply", "auto:", "auto-reply", "out of office", "out of the office", "out-of-office", "vacation",
	"automatische antwort", "abwesend", "abwesenheit", "autoantwort", "réponse automatique", "reponse automatique", "absence du bureau",
	"respuesta automática", "respuesta automatica", "fuera de la oficina", "risposta automatica", "fuori sede", "resposta automática", "resposta automatica",
	"automatisch antwoord", "afwezig", "automatiskt svar", "automatisk svar", "automaattinen vastaus", "odpowiedź automatyczna", "automatická odpověď",
	"automatická odpoveď", "automatikus válasz", "otomatik yanıt", "автоответ", "автоматический ответ", "自动答复", "自動応答", "自動回覆", "자동 회신"}

func absent(subject string) bool {
	s := strings.ToLower(cutText(subject, 200))
	for _, p := range absences {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
