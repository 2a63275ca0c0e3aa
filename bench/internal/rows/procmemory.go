package rows

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
)

// processMemory returns the proportional set size of a process, and the part of it
// that is no mapped file, in MiB.
func processMemory(pid int) (pss, anonymous float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, err
	}
	return parseSmaps(text)
}

func parseSmaps(text []byte) (pss, anonymous float64, err error) {
	var file float64
	found := false
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		var kib float64
		if _, err := fmt.Sscanf(string(value), "%f kB", &kib); err != nil {
			continue
		}
		switch string(name) {
		case "Pss":
			pss, found = kib/1024, true
		case "Pss_File":
			file = kib / 1024
		}
	}
	if !found {
		return 0, 0, fmt.Errorf("no Pss in smaps_rollup")
	}
	return pss, pss - file, nil
}
