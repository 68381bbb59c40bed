package main

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// What the program's own file takes in memory is given back, and the program goes on.
func TestStartIsGivenBack(t *testing.T) {
	resident := func() int {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`RssFile:\s+(\d+) kB`).FindSubmatch(b)
		if m == nil {
			t.Fatalf("no RssFile in\n%s", b)
		}
		kib, _ := strconv.Atoi(string(m[1]))
		return kib
	}
	before := resident()
	giveBack()
	if after := resident(); after >= before {
		t.Errorf("%d KiB of files are resident, %d before", after, before)
	}
}
