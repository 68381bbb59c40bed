package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// gcPercent trades a little processor time for memory: messages under way live
	// for milliseconds, so twice as much garbage is only a larger process.
	gcPercent = 50

	// heapFloor counts as heap and is never touched, so that it takes no memory. What
	// lives beside it is so little that the collector would start again after each
	// few messages; so it starts after gcPercent of the floor more.
	heapFloor = 16 << 20

	// settled is when a process that has just started needs no more of what starting
	// took; it is given back to the system, once.
	settled = time.Second
)

// thrift keeps the process small, unless the operator has said how large it may be.
// The floor counts for as long as it is kept.
func thrift() (floor []byte) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	return make([]byte, heapFloor)
}

// giveBack returns what nothing needs any more: free heap, and the parts of the
// program's own file that only starting had to read. What is needed again comes back
// by itself.
func giveBack() {
	debug.FreeOSMemory()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		var from, to uintptr
		var may, offset, device, inode, file string
		n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %s %s", &from, &to, &may, &offset, &device, &inode, &file)
		if n == 7 && file == self && may[1] == '-' { // what may be written is not in the file
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}
