package api

import (
	"errors"
	"net/http"

	"github.com/mailgrant/mailgrant"
)

// bodyError says why a request's body could not be read to its end.
func bodyError(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return mailgrant.Errorf(mailgrant.TooLarge, err, "the body is larger than %d bytes", large.Limit).
			Fix("make it smaller, or send large messages as message/rfc822")
	}
	return mailgrant.Errorf(mailgrant.Invalid, err, "the body could not be read to its end").
		Fix("send it again, with its true Content-Length")
}
