package diagnose

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// matchError recognises errors of the standard library by their type, which
// says more than their text.
func (e *evidence) matchError(err error) {
	if err == nil {
		return
	}
	if cause := causeOf(err); cause != "" {
		e.hit(cause, 7, 0, 0)
	}
}

func causeOf(err error) string {
	var (
		dns     *net.DNSError
		verify  *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		roots   x509.SystemRootsError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		op      *net.OpError
	)
	switch {
	case errors.As(err, &dns):
		return "dns-failure"
	case errors.As(err, &verify), errors.As(err, &unknown), errors.As(err, &host),
		errors.As(err, &invalid), errors.As(err, &roots):
		return "tls-certificate-untrusted"
	case errors.As(err, &record), errors.As(err, &alert):
		return "tls-failure"
	case errors.As(err, &op) && op.Op == "dial":
		return "network-unreachable"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH),
		errors.Is(err, syscall.ENETUNREACH), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return "network-unreachable"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return "?closed"
	}
	return ""
}
