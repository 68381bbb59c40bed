package webhook

import "time"

// SetWithin has requests end sooner. Call it before Run.
func SetWithin(t *Teller, d time.Duration) { t.within = d }

// Repeats is how many events at most are told again after a crash.
const Repeats = repeats
