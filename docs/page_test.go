package docs_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// block is a fenced block of a page with the comment that stands right above it.
type block struct {
	line   int    // of the comment
	mark   string // the comment's text before the colon
	words  []string
	lang   string
	text   string
	output string // what it has to print; "" = anything
}

var marked = regexp.MustCompile(`(?m)^[ ]*<!-- ([a-z]+)(?:: ([^\n>]*?))? -->\n[ ]*` + "```" + `([a-z]*)\n((?s:.*?))^[ ]*` + "```" + `$`)

// blocks are the marked blocks of a page, in order. An "output" is put to the block before it; an
// output of another kind ("output: background") stays a block of its own.
func blocks(page string) (list []block) {
	for _, at := range marked.FindAllStringSubmatchIndex(page, -1) {
		group := func(n int) string {
			if at[2*n] < 0 {
				return ""
			}
			return page[at[2*n]:at[2*n+1]]
		}
		b := block{
			line: 1 + strings.Count(page[:at[0]], "\n"), mark: group(1), words: strings.Fields(group(2)), lang: group(3), text: group(4),
		}
		if b.mark == "output" && len(b.words) == 0 && len(list) > 0 {
			list[len(list)-1].output = b.text
			continue
		}
		list = append(list, b)
	}
	return list
}

func (b block) is(word string) bool {
	for _, w := range b.words {
		if w == word {
			return true
		}
	}
	return false
}

func readPage(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section is what stands between <!-- name --> and <!-- /name -->.
func section(t testing.TB, path, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(readPage(t, path), "<!-- "+name+" -->\n")
	text, _, closed := strings.Cut(rest, "<!-- /"+name+" -->")
	if !ok || !closed {
		t.Fatalf("%s has no section %q", path, name)
	}
	return text
}

// rows are the cells of a table without its head.
func rows(table string) (list [][]string) {
	for line := range strings.SplitSeq(strings.TrimSpace(table), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		list = append(list, cells)
	}
	return list[min(2, len(list)):]
}

var space = regexp.MustCompile(`\s+`)

// prints reports whether an output is as it was announced: … stands for anything, white space does not
// count, and there may be more before and after.
func prints(output, announced string) bool {
	output = space.ReplaceAllString(output, "")
	for part := range strings.SplitSeq(space.ReplaceAllString(announced, ""), "…") {
		at := strings.Index(output, part)
		if at < 0 {
			return false
		}
		output = output[at+len(part):]
	}
	return true
}

func TestPrints(t *testing.T) {
	for _, c := range []struct {
		output, announced string
		want              bool
	}{
		{`{"id":"msg_1","n":2}` + "\n202\n", `{"id": "msg_…", …}` + "\n202", true},
		{`{"id":"msg_1","n":2}` + "\n200\n", `{"id": "msg_…", …}` + "\n202", false},
		{"b a", "a … b", false},
		{"", "a", false},
		{"a", "", true},
	} {
		if got := prints(c.output, c.announced); got != c.want {
			t.Errorf("%q as %q: %v", c.output, c.announced, got)
		}
	}
}

func TestBlocks(t *testing.T) {
	got := blocks("<!-- test: a until -->\n```sh\nx\n```\n<!-- output -->\n```\ny\n```\n```sh\nnot marked\n```\n\n<!-- test: b -->\n```sh\nz\n```\n<!-- output: background -->\n```\nw\n```\n")
	if len(got) != 3 || got[0].text != "x\n" || got[0].output != "y\n" || !got[0].is("until") || got[1].line != 13 || got[2].mark != "output" {
		t.Errorf("%+v", got)
	}
}
