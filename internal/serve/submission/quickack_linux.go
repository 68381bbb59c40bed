package submission

import "syscall"

// quickAck sends an acknowledgement that is due now instead of up to 40 ms
// later. A client that leaves Nagle's algorithm on keeps its next small segment
// back until then, and we have nothing to say that could carry it.
func (w *wire) quickAck() {
	if w.raw != nil {
		w.raw.Control(setQuickAck)
	}
}

func setQuickAck(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
}
