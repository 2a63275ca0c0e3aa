package report

import (
	"fmt"
	"os"
	"path"
	"strings"
)

// The lines that the generated section of a document is between.
const (
	sectionBegin = "<!-- bench-peers: from here to the end mark the tool writes -->"
	sectionEnd   = "<!-- bench-peers: end -->"
)

// Markdown returns the whole report. plots is the folder of the plots, as a link from
// where the text will be.
func (d *Data) Markdown(plots string) string {
	var b strings.Builder
	b.WriteString(d.Setting() + "\nEach value is followed by its ratio to etcd through its Go client in the same row.\n\n" + d.Table())
	b.WriteString("\nWhat Trivet is to reach, as ratios to etcd through its Go client:\n\n" + d.Targets())
	for _, p := range d.Plots() {
		fmt.Fprintf(&b, "\n![%s](%s)\n", p.Title, path.Join(plots, p.Name))
	}
	b.WriteString("\n<details><summary>Latencies and CPU time of every closed loop</summary>\n\n" + d.Details() + "\n</details>\n")
	if further := d.Further(); further != "" {
		b.WriteString("\n<details><summary>Further figures</summary>\n\n" + further + "\n</details>\n")
	}
	if failures := d.Failures(); failures != "" {
		b.WriteString("\nNot measured:\n\n" + failures)
	}
	return b.String()
}

// ReplaceSection puts text between the marks of a document, in place of what is
// there. The error says that the marks are not there, once each and in order; the
// document is then as it was.
func ReplaceSection(document, text string) (string, error) {
	if strings.Count(document, sectionBegin) != 1 || strings.Count(document, sectionEnd) != 1 {
		return document, fmt.Errorf("need one line %q and one %q", sectionBegin, sectionEnd)
	}
	before, rest, _ := strings.Cut(document, sectionBegin)
	_, after, found := strings.Cut(rest, sectionEnd)
	if !found {
		return document, fmt.Errorf("%q comes before %q", sectionEnd, sectionBegin)
	}
	return before + sectionBegin + "\n\n" + strings.TrimSpace(text) + "\n\n" + sectionEnd + after, nil
}

// WriteSection does ReplaceSection to a file.
func WriteSection(file, text string) error {
	document, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	replaced, err := ReplaceSection(string(document), text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(replaced), 0o644)
}
