package real

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Elsewhere is a mailbox of the server whose owner the provider does not know:
// somebody to write to.
const Elsewhere = "someone@elsewhere.example"

// A MailServer is Postfix and Dovecot: submission, IMAP and POP3, with tokens of
// one provider and no passwords. Dovecot tells good tokens from bad ones by the
// provider's public key, its issuer, the audience and the date in them; Postfix
// asks Dovecot, and lets nobody send as somebody else.
//
// Mail for its mailboxes goes to Maildirs, for all others it is refused. Postfix
// changes nothing but that it adds trace lines: also a Bcc field stays, so that
// what is missing in the Maildir was not sent.
type MailServer struct {
	Host   string // in the certificate
	CAFile string

	SubmissionPort  int // STARTTLS
	SubmissionsPort int // TLS from the beginning
	IMAPPort        int // STARTTLS
	IMAPSPort       int // TLS from the beginning
	POP3Port        int // STLS
	POP3SPort       int // TLS from the beginning

	dir       string
	uid, gid  int // of the Maildirs
	mailboxes []string
	postfix   daemon
	dovecot   daemon
	program   string // of Dovecot
}

// A daemon is a process with its log.
type daemon struct {
	cmd   *exec.Cmd
	log   log
	ended chan struct{}
}

func (d *daemon) start(c *exec.Cmd) error {
	c.Stdout, c.Stderr = &d.log, &d.log
	c.WaitDelay = time.Second // a child may keep the log open
	d.cmd, d.ended = c, make(chan struct{})
	if err := c.Start(); err != nil {
		return err
	}
	go func() { c.Wait(); close(d.ended) }()
	return nil
}

// NewMailServer starts a server for the people of p, and ends it with the test.
// It needs root, or sudo without a password.
func NewMailServer(t testing.TB, p *OIDC) *MailServer {
	t.Helper()
	master, dovecot, cert := postfixMaster(t), program(t, "dovecot"), certificates(t)
	ports := freePorts(t, 6)
	m := &MailServer{Host: "localhost", CAFile: cert.certFile, dir: folder(t, "mail"), program: dovecot,
		SubmissionPort: ports[0], SubmissionsPort: ports[1], IMAPPort: ports[2], IMAPSPort: ports[3], POP3Port: ports[4], POP3SPort: ports[5]}
	m.uid, m.gid = owner(t)
	for a := range p.Users {
		m.mailboxes = append(m.mailboxes, strings.ToLower(a))
	}
	m.mailboxes = append(m.mailboxes, System, Elsewhere)
	slices.Sort(m.mailboxes)

	// Both write the ids of their master process there.
	stop := killFromFile(m.at("queue", "pid", "master.pid"), "TERM") + "; " + killFromFile(m.at("run", "master.pid"), "KILL")
	atExit(t, stop+"; "+strings.Join(append(rootPrefix(), "rm", "-rf", quote(m.dir)), " "))
	t.Cleanup(func() {
		exec.Command("sh", "-c", stop).Run() // one that is gone already is no fault
		asRoot(t, "rm", "-rf", m.dir).Run()
		if t.Failed() {
			t.Logf("Postfix said:\n%s\nDovecot said:\n%s", tail(m.postfix.log.String()), tail(m.dovecot.log.String()))
		}
	})
	if err := errors.Join(m.writeDovecot(p, cert), m.writePostfix(cert)); err != nil {
		t.Fatalf("the settings of the mail server: %v", err)
	}
	// "postfix start" would make them too, and think for two seconds.
	folders := fmt.Sprintf(`cd %s && install -d queue/pid && install -d -o postfix data && chown %d:%d mail home && cd queue && `+
		`install -d -o postfix -m 700 active bounce corrupt defer deferred flush hold incoming private saved trace && `+
		`install -d -o postfix -g postdrop -m 730 maildrop && install -d -o postfix -g postdrop -m 710 public`, quote(m.dir), m.uid, m.gid)
	if out, err := asRoot(t, "sh", "-c", folders).CombinedOutput(); err != nil {
		t.Fatalf("the folders of the mail server: %v\n%s", err, out)
	}
	if err := m.postfix.start(asRoot(t, master, "-c", m.at("postfix"), "-s")); err != nil {
		t.Fatalf("the mail server: %v", err)
	}
	m.StartDovecot(t)
	// Each opens all its ports before it serves one.
	if err := awaitPort(m.SubmissionsPort, m.postfix.ended); err != nil {
		t.Fatalf("Postfix on port %d: %v\n%s", m.SubmissionsPort, err, tail(m.postfix.log.String()))
	}
	return m
}

// StartDovecot starts Dovecot after KillDovecot, on the same ports, and returns
// when it serves. The settings are added to its own.
func (m *MailServer) StartDovecot(t testing.TB, settings ...string) {
	t.Helper()
	if err := m.write(strings.Join(settings, "\n")+"\n", "dovecot", "added.conf"); err != nil {
		t.Fatal(err)
	}
	pid := m.at("run", "master.pid")
	if out, err := asRoot(t, "rm", "-f", pid).CombinedOutput(); err != nil { // of the one before
		t.Fatalf("Dovecot: %v\n%s", err, out)
	}
	c := asRoot(t, m.program, "-F", "-c", m.at("dovecot", "dovecot.conf"))
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Postfix makes a session of its own
	if err := m.dovecot.start(c); err != nil {
		t.Fatalf("Dovecot: %v", err)
	}
	err := awaitPort(m.IMAPPort, m.dovecot.ended)
	if err == nil { // by which it is killed, and which it writes last
		err = await(func() error { return written(pid) }, m.dovecot.ended)
	}
	if err != nil {
		t.Fatalf("Dovecot on port %d: %v\n%s", m.IMAPPort, err, tail(m.dovecot.log.String()))
	}
}

// written says that there is something in a file.
func written(name string) error {
	info, err := os.Stat(name)
	if err == nil && info.Size() == 0 {
		err = fmt.Errorf("%s is empty", name)
	}
	return err
}

// KillDovecot ends all processes of Dovecot with SIGKILL. Postfix goes on: mail is
// delivered, and who is logged in there stays so.
func (m *MailServer) KillDovecot(t testing.TB) {
	t.Helper()
	// Stopped, the master starts no more of them meanwhile.
	kill := fmt.Sprintf(`p=$(head -n 1 %s | tr -d ' '); kill -STOP "$p"; all="$p $(cat "/proc/$p/task/$p/children")"; kill -KILL $all; `+
		`for p in $all; do n=0; while [ $n -lt 1000 ] && grep -q '^State:.[^Z]' "/proc/$p/status" 2>/dev/null; do sleep 0.01; n=$((n+1)); done; done`, quote(m.at("run", "master.pid")))
	if out, err := asRoot(t, "sh", "-c", kill).CombinedOutput(); err != nil {
		t.Fatalf("kill Dovecot: %v\n%s", err, out)
	}
	<-m.dovecot.ended
}

// postfixMaster is the process that runs the rest of Postfix.
func postfixMaster(t testing.TB) string {
	t.Helper()
	out, err := exec.Command(program(t, "postconf"), "-d", "-h", "daemon_directory").Output()
	if err != nil {
		t.Fatalf("postconf: %v; %s", err, remedy)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "master")
}

// at is a path inside the server's folder.
func (m *MailServer) at(parts ...string) string {
	return filepath.Join(append([]string{m.dir}, parts...)...)
}

// owner is whom the Maildirs belong to: us, so that the tests can read them, or
// when we are root somebody else, because Dovecot serves no mail of root.
func owner(t testing.TB) (uid, gid int) {
	t.Helper()
	if os.Getuid() != 0 {
		return os.Getuid(), os.Getgid()
	}
	u, err := user.Lookup("mail")
	if err != nil {
		t.Fatalf("there is no user mail to own the Maildirs (%v); %s", err, remedy)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return uid, gid
}

// write makes a file of the server with the folders it lies in. Its date is in
// the past: with a file of this second Postfix waits for the next, lest somebody
// is still writing.
func (m *MailServer) write(text string, parts ...string) error {
	path, past := m.at(parts...), time.Now().Add(-time.Hour)
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644), os.Chtimes(path, past, past))
}

func (m *MailServer) writeDovecot(p *OIDC, cert *authority) error {
	pem, err := p.PublicKeyPEM()
	if err != nil {
		return err
	}
	return errors.Join(
		os.MkdirAll(m.at("auth"), 0o755), os.MkdirAll(m.at("mail"), 0o755), os.MkdirAll(m.at("home"), 0o755), os.MkdirAll(m.at("queue"), 0o755),
		// "default" stands for the client that a token was made for, which this
		// provider does not write into azp.
		m.write(string(pem), "dovecot", "keys", "default", "RS256", p.KeyID),
		m.write(fmt.Sprintf(`introspection_mode = local
local_validation_key_dict = fs:posix:prefix=%[1]s/dovecot/keys/
issuers = %[2]s
client_id = %[3]s
scope = %[4]s
username_attribute = email
`, m.dir, p.Issuer, p.Resource, p.Scopes[0]), "dovecot", "oauth2.conf"),
		m.write(fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/run
instance_name = mailgrant-test
log_path = /dev/stderr
listen = 127.0.0.1
protocols = imap pop3
ssl = required
ssl_cert = <%[2]s
ssl_key = <%[3]s
ssl_dh =
auth_mechanisms = xoauth2 oauthbearer
auth_username_format = %%Lu
auth_failure_delay = 0
auth_verbose = yes
mail_location = maildir:%[1]s/mail/%%Ld/%%Ln
first_valid_uid = 1
first_valid_gid = 1
passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = %[1]s/dovecot/oauth2.conf
}
userdb {
  driver = static
  args = uid=%[4]d gid=%[5]d home=%[1]s/home/%%Ld/%%Ln
}
!include added.conf
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  unix_listener %[1]s/auth/smtp {
    mode = 0666
  }
}
service imap-login {
  inet_listener imap {
    port = %[6]d
  }
  inet_listener imaps {
    port = %[7]d
    ssl = yes
  }
}
service pop3-login {
  inet_listener pop3 {
    port = %[8]d
  }
  inet_listener pop3s {
    port = %[9]d
    ssl = yes
  }
}
`, m.dir, cert.leafFile, cert.keyFile, m.uid, m.gid, m.IMAPPort, m.IMAPSPort, m.POP3Port, m.POP3SPort), "dovecot", "dovecot.conf"))
}

func (m *MailServer) writePostfix(cert *authority) error {
	var boxes, senders, domains strings.Builder
	known := map[string]bool{}
	for _, a := range m.mailboxes {
		local, domain, _ := strings.Cut(a, "@")
		fmt.Fprintf(&boxes, "%s %s/%s/\n", a, domain, local)
		fmt.Fprintf(&senders, "%s %s\n", a, a)
		if !known[domain] {
			fmt.Fprintf(&domains, "%s ok\n", domain)
		}
		known[domain] = true
	}
	return errors.Join(
		m.write(boxes.String(), "postfix", "mailboxes"),
		m.write(senders.String(), "postfix", "senders"),
		m.write(domains.String(), "postfix", "domains"),
		m.write(fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = /dev/stdout
myhostname = mx.real.example
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
local_transport = error:nobody is local here
default_transport = error:nothing leaves this machine
virtual_transport = virtual
virtual_mailbox_domains = texthash:%[1]s/postfix/domains
virtual_mailbox_maps = texthash:%[1]s/postfix/mailboxes
virtual_mailbox_base = %[1]s/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:%[2]d
virtual_gid_maps = static:%[3]d
virtual_mailbox_limit = 0
message_size_limit = 52428800
enable_original_recipient = no
local_header_rewrite_clients =
message_drop_headers =
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %[1]s/auth/smtp
smtpd_sasl_security_options = noanonymous
smtpd_sasl_tls_security_options = noanonymous
smtpd_tls_auth_only = yes
smtpd_tls_cert_file = %[4]s
smtpd_tls_key_file = %[5]s
smtpd_tls_loglevel = 0
smtpd_sender_login_maps = texthash:%[1]s/postfix/senders
smtpd_sender_restrictions = reject_sender_login_mismatch
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_client_restrictions =
smtpd_helo_restrictions =
smtpd_error_sleep_time = 0
smtpd_peername_lookup = no
`, m.dir, m.uid, m.gid, cert.leafFile, cert.keyFile), "postfix", "main.cf"),
		m.write(fmt.Sprintf(`127.0.0.1:%d inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
127.0.0.1:%d inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`, m.SubmissionPort, m.SubmissionsPort), "postfix", "master.cf"))
}

// Submission is the host:port with STARTTLS.
func (m *MailServer) Submission() string { return m.address(m.SubmissionPort) }

// Submissions is the host:port with TLS from the beginning.
func (m *MailServer) Submissions() string { return m.address(m.SubmissionsPort) }

// IMAPS is the host:port of IMAP with TLS from the beginning.
func (m *MailServer) IMAPS() string { return m.address(m.IMAPSPort) }

// POP3S is the host:port of POP3 with TLS from the beginning.
func (m *MailServer) POP3S() string { return m.address(m.POP3SPort) }

func (m *MailServer) address(port int) string { return net.JoinHostPort(m.Host, strconv.Itoa(port)) }

// Folder is where all of it lies.
func (m *MailServer) Folder() string { return m.dir }

// Log is what Postfix and Dovecot said so far.
func (m *MailServer) Log() string { return m.postfix.log.String() + m.dovecot.log.String() }

// A Mail is a file of a Maildir.
type Mail struct {
	Raw   []byte // as it lies there, lines ending in LF
	Trace []byte // what Postfix put on top: Return-Path, Delivered-To, Received
	Sent  []byte // the rest with lines ending in CRLF: what Postfix was given
}

// Messages are what lies in the Maildir of a mailbox, oldest first.
func (m *MailServer) Messages(t testing.TB, address string) []Mail {
	t.Helper()
	all, err := m.messages(address)
	if err != nil {
		t.Fatalf("the Maildir of %s: %v", address, err)
	}
	return all
}

// Await returns the messages of a mailbox as soon as there are at least n.
func (m *MailServer) Await(t testing.TB, address string, n int) []Mail {
	t.Helper()
	var all []Mail
	err := await(func() (err error) {
		if all, err = m.messages(address); err == nil && len(all) < n {
			err = fmt.Errorf("%d of %d messages", len(all), n)
		}
		return err
	}, m.postfix.ended)
	if err != nil {
		t.Fatalf("the Maildir of %s: %v", address, err)
	}
	return all
}

// Count is how many messages lie in a folder of a mailbox; "" is its inbox.
func (m *MailServer) Count(address, folder string) (n int, err error) {
	local, domain, _ := strings.Cut(strings.ToLower(address), "@")
	if folder != "" {
		folder = "." + folder // Maildir++
	}
	for _, sub := range []string{"new", "cur"} {
		l, err := os.ReadDir(m.at("mail", domain, local, folder, sub))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		n += len(l)
	}
	return n, nil
}

func (m *MailServer) messages(address string) ([]Mail, error) {
	if !slices.Contains(m.mailboxes, strings.ToLower(address)) {
		return nil, errors.New("this server has no such mailbox")
	}
	local, domain, _ := strings.Cut(strings.ToLower(address), "@")
	type file struct {
		path string
		at   time.Time
	}
	var files []file
	for _, sub := range []string{"new", "cur"} {
		dir := m.at("mail", domain, local, sub)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				return nil, err
			}
			files = append(files, file{filepath.Join(dir, e.Name()), info.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return a.at.Compare(b.at) })
	out := make([]Mail, len(files))
	for i, f := range files {
		raw, err := os.ReadFile(f.path)
		if err != nil {
			return nil, err
		}
		out[i] = split(raw)
	}
	return out, nil
}

// split tells what Postfix put on top from what it was given: all up to the end
// of the first Received field, which is its own.
func split(raw []byte) Mail {
	m := Mail{Raw: raw}
	rest, own := raw, false
	for len(rest) > 0 {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		folded := len(line) > 0 && (line[0] == ' ' || line[0] == '\t')
		if own && !folded {
			break
		}
		own = own || bytes.HasPrefix(line, []byte("Received:"))
		rest = rest[min(len(line)+1, len(rest)):]
	}
	m.Trace = raw[:len(raw)-len(rest)]
	m.Sent = bytes.ReplaceAll(rest, []byte("\n"), []byte("\r\n"))
	return m
}
