package console

import (
	"net/http"

	"github.com/mailgrant/mailgrant"
)

// statuses are what a page answers with when the work did not succeed.
var statuses = map[mailgrant.Code]int{
	mailgrant.Invalid: http.StatusBadRequest, mailgrant.Unauthorized: http.StatusUnauthorized, mailgrant.Forbidden: http.StatusForbidden,
	mailgrant.NotFound: http.StatusNotFound, mailgrant.Conflict: http.StatusConflict, mailgrant.TooLarge: http.StatusRequestEntityTooLarge,
	mailgrant.Limited: http.StatusTooManyRequests, mailgrant.NoRoute: http.StatusConflict, mailgrant.Lapsed: http.StatusForbidden,
	mailgrant.Misset: http.StatusConflict, mailgrant.Unavailable: http.StatusServiceUnavailable, mailgrant.NoSpace: http.StatusInsufficientStorage,
}

func statusOf(c mailgrant.Code) int {
	if s, ok := statuses[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}
