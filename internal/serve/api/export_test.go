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

// ArrivalKinds are what a key that only receives may follow.
var ArrivalKinds = arrivalKinds
