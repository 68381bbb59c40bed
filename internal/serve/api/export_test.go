package api

import (
	"testing"
	"time"
)

// Hasten gives bodies less time.
func Hasten(t testing.TB, a *API, within time.Duration) {
	t.Helper()
	a.within = within
}
