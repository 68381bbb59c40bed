package submission

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// mayAuth says whether an AUTH command would be heard now.
func (s *session) mayAuth() bool { return s.extended && s.maySecret() && !s.loggedIn }

// errCancel is a client's "*" in the middle of AUTH.
var errCancel = errors.New("submission: AUTH cancelled")

// errBase64 is an answer that is not exactly base64.
var errBase64 = errors.New("submission: not base64")

// auth logs in: RFC 4954 with PLAIN (RFC 4616) and LOGIN.
func (s *session) auth(arg []byte) error {
	switch {
	case !s.maySecret():
		return s.wrong("538 5.7.11 a key shown in clear text is lost: use TLS first, and revoke the key if it was sent\r\n")
	case s.loggedIn: // and so in an envelope too
		return s.wrong("503 5.5.1 logged in already\r\n")
	case !s.extended:
		return s.wrong("503 5.5.1 EHLO first\r\n")
	}
	mechanism, initial := split(arg)
	var user, key string
	var err error
	switch {
	case isVerb(mechanism, "PLAIN"):
		user, key, err = s.plain(initial)
	case isVerb(mechanism, "LOGIN"):
		user, key, err = s.login(initial)
	default:
		return s.wrong("504 5.5.4 only AUTH PLAIN and AUTH LOGIN are offered\r\n")
	}
	switch {
	case errors.Is(err, errCancel):
		return s.wrong("501 5.0.0 cancelled\r\n")
	case errors.Is(err, errBase64):
		return s.wrong("501 5.5.2 the answer is not base64\r\n")
	case errors.Is(err, mailgrant.Unauthorized):
		return s.notIn(err)
	case err != nil:
		return err
	}
	return s.in(user, key)
}

// in asks who shows the key.
func (s *session) in(user, key string) error {
	ctx, cancel := s.within()
	defer cancel()
	c, err := s.srv.Access.Login(ctx, user, key, Door, s.source)
	if err == nil && !c.May(mailgrant.ScopeSend) {
		err = mailgrant.Errorf(mailgrant.Forbidden, nil, "the key %s has no right to send", c.Key.Prefix).
			Fix("issue one that has: mailgrant app key issue %s --scope send", c.App.Name)
	}
	if err != nil {
		return s.notIn(err)
	}
	s.caller, s.loggedIn = c, true
	s.errors, s.wrongKeys, s.chatter = 0, 0, 0
	s.srv.known(s)
	if h := s.srv.Hooks.LoggedIn; h != nil {
		h(true)
	}
	s.say("235 2.7.0 welcome\r\n")
	return nil
}

// notIn answers a login that failed. Who guesses on is cut off.
func (s *session) notIn(err error) error {
	if h := s.srv.Hooks.LoggedIn; h != nil {
		h(false)
	}
	e := mailgrant.AsError(err)
	s.srv.Log.Info("submission: login refused", "source", s.source, "code", string(e.Code), "error", e.Message, "cause", e.Cause)
	if e.Code == mailgrant.Limited {
		s.say(s.srv.loginLine(e))
		return errEnd
	} else if _, ours := loginReplies[e.Code]; ours { // nothing is known of the key
		return s.mistake(s.srv.loginLine(e))
	}
	s.say(s.srv.loginLine(e))
	if s.wrongKeys++; s.wrongKeys >= s.srv.Limits.Logins {
		s.say(s.srv.about("421 4.7.0 too many wrong keys", pageTries))
		return errEnd
	}
	return nil
}

// plain takes authorization id, user name and key from one answer. To act for
// another than the user name is nobody's right here.
func (s *session) plain(initial []byte) (user, key string, err error) {
	if len(initial) == 0 {
		if initial, err = s.ask("334 \r\n"); err != nil {
			return "", "", err
		}
	}
	b, err := decode(initial)
	if err != nil {
		return "", "", err
	}
	parts := bytes.Split(b, []byte{0})
	if len(parts) != 3 {
		return "", "", errBase64
	}
	authz, user, key := string(parts[0]), string(parts[1]), string(parts[2])
	if authz != "" && !strings.EqualFold(authz, user) {
		return "", "", mailgrant.Errorf(mailgrant.Unauthorized, nil, "an app logs in as itself only").
			Fix("leave the authorization identity empty")
	}
	return user, key, nil
}

// login asks for user name and key one by one.
func (s *session) login(initial []byte) (user, key string, err error) {
	if len(initial) == 0 {
		if initial, err = s.ask("334 VXNlcm5hbWU6\r\n"); err != nil {
			return "", "", err
		}
	}
	u, err := decode(initial)
	if err != nil {
		return "", "", err
	}
	answer, err := s.ask("334 UGFzc3dvcmQ6\r\n")
	if err != nil {
		return "", "", err
	}
	k, err := decode(answer)
	return string(u), string(k), err
}

// ask sends a challenge and reads the answer to it.
func (s *session) ask(challenge string) ([]byte, error) {
	s.say(challenge)
	line, err := s.line(func() int { return s.srv.Limits.AuthLine })
	if err == nil && string(line) == "*" {
		return nil, errCancel
	}
	return line, err
}

// decode reads canonical base64; "=" is an empty answer in place of none.
func decode(b []byte) ([]byte, error) {
	if string(b) == "=" {
		return nil, nil
	}
	out, err := base64.StdEncoding.Strict().DecodeString(string(b))
	if err != nil {
		return nil, errBase64
	}
	return out, nil
}
