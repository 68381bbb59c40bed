package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/mailgrant/mailgrant"
)

// masterLen is the length of a master key in bytes; in text it is base64.
const masterLen = 32

// MasterKey makes a master key from its text.
func MasterKey(text string) (tink.AEAD, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(b) != masterLen {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "the master key is not %d bytes in base64", masterLen).
			Fix("make one with: mailgrant key new")
	}
	if bytes.Equal(b, make([]byte, masterLen)) {
		return nil, mailgrant.Errorf(mailgrant.Misset, nil, "the master key is all zeros").
			Fix("make one with: mailgrant key new")
	}
	a, err := subtle.NewXChaCha20Poly1305(b)
	if err != nil {
		return nil, fmt.Errorf("use the master key: %w", err)
	}
	return a, nil
}

// NewMasterKey is the text of a new one.
func NewMasterKey() string {
	b := make([]byte, masterLen)
	rand.Read(b)
	return base64.StdEncoding.EncodeToString(b) + "\n"
}

// MasterKeyFile reads the master key from a file that only its owner may read.
// With create a missing file is made.
func MasterKeyFile(name string, create bool) (tink.AEAD, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && create {
		if err := writeNew(name, NewMasterKey()); err != nil {
			return nil, fmt.Errorf("make the master key: %w", err)
		}
		b, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "the master key file %s cannot be read", name).
			Fix("put the master key of this database there, readable for mailgrant only")
	}
	if fi, err := os.Stat(name); err == nil && fi.Mode().Perm()&0o077 != 0 {
		return nil, mailgrant.Errorf(mailgrant.Misset, nil, "the master key file %s can be read by others", name).
			Fix("chmod 600 %s", name)
	}
	return MasterKey(string(b))
}

func writeNew(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// MasterKeyCommand leaves the master key where it is: in a key management
// service, behind a command. The command is run with "wrap" or "unwrap" as its
// last argument, reads base64 on its input and writes base64 to its output.
func MasterKeyCommand(argv []string) tink.AEAD { return command(argv) }

type command []string

// commandWait is how long a key service may take.
const commandWait = 20 * time.Second

// Encrypt implements tink.AEAD. The associated data goes in front of the text.
func (c command) Encrypt(plain, ad []byte) ([]byte, error) {
	return c.run("wrap", frame(ad, plain))
}

// Decrypt implements tink.AEAD.
func (c command) Decrypt(sealed, ad []byte) ([]byte, error) {
	b, err := c.run("unwrap", sealed)
	if err != nil {
		return nil, err
	}
	want := frame(ad, nil)
	if !bytes.HasPrefix(b, want) {
		return nil, errors.New("the key service gave back another text")
	}
	return b[len(want):], nil
}

func frame(ad, b []byte) []byte {
	return append(append(append([]byte{byte(len(ad))}, ad...), 0), b...)
}

func (c command) run(verb string, in []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, c[0], append(append([]string{}, c[1:]...), verb)...)
	cmd.Stdin = strings.NewReader(base64.StdEncoding.EncodeToString(in) + "\n")
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "the command of the master key failed").
			Fix("run it by hand: echo aGVsbG8= | %s %s", c[0], verb)
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(out.String()))
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "the command of the master key did not answer in base64").
			Fix("let it write one line of base64 to its output")
	}
	return b, nil
}
