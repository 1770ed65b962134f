// Writes path_match.tsv: patterns, texts, and what Go's path.Match says of them.
//
//	go run path_match.go > path_match.tsv
package main

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"path"
	"strings"
)

var known = []string{
	"", "*", "?", "**", "a", "\\a", "\\*", "\\", "a\\", "[", "[]", "[^", "[^]", "[a]", "[^a]", "[a-c]", "[c-a]", "[a-]",
	"[-a]", "[a-c-e]", "[]a]", "[\\]]", "[\\]a]", "[\\-]", "[a\\-c]", "[*]", "[?]", "[[]", "[/]", "[^/]", "]", "-", "^",
	"a*", "*a", "*a*", "a*b", "a**b", "a?c", "*?", "?*", "/*", "*/", "*/*", "/*/*", "*[^b]*c", "*[^x]", "[a-ζ]*", "*ζ", "?ζ",
	"/v1/key/create/*", "/v1/key/*", "/v1/*/create/*", "/v1/key/create/my-*", "/v1/key/[a-z]*/my-key?", "/v1/*", "my-key*",
	"/v1/key/generate/app-[0-9][0-9]", "*\\", "*[", "a[", "[a", "[a-", "[\\", "[^a-", "x[^\\]]y",
}

var texts = []string{
	"", "a", "b", "c", "*", "?", "\\", "[", "]", "-", "^", "/", "ab", "abc", "aXc", "a/c", "ac", "ζ", "aζ", "éζ", "a/ζ", "//",
	"/a", "a/", "/a/b", "a/b", "/v1/key/create/my-key", "/v1/key/create/", "/v1/key/create", "/v1/key/create/a/b", "my-key",
	"my-key1", "/v1/key/generate/app-07", "/v1/key/generate/app-0", "x]y", "xay", "a/cc", "aa/cac", "a-c", "\uFFFD",
}

func main() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	seen := map[string]bool{}
	tell := func(pattern, text string) {
		line := pattern + "\t" + text
		if seen[line] || strings.ContainsAny(line[:len(pattern)]+text, "\t\n\r") {
			return
		}
		seen[line] = true
		outcome := "no"
		if ok, err := path.Match(pattern, text); err != nil {
			outcome = "bad"
		} else if ok {
			outcome = "yes"
		}
		fmt.Fprintf(out, "%s\t%s\n", line, outcome)
	}
	for _, pattern := range known {
		for _, text := range texts {
			tell(pattern, text)
		}
	}
	random := rand.New(rand.NewSource(7))
	pick := func(from []string, most int) string {
		text := ""
		for n := random.Intn(most + 1); n > 0; n-- {
			text += from[random.Intn(len(from))]
		}
		return text
	}
	parts := []string{"*", "?", "a", "b", "/", "é", "[ab]", "[^a]", "[a-é]", "[^/]", "\\*", "*", "*b", "[^b]"}
	broken := []string{"*", "?", "a", "/", "[", "]", "-", "^", "\\", "[a"}
	letters := []string{"a", "b", "/", "é", "*"}
	for i := 0; i < 2400; i++ {
		tell(pick(parts, 7), pick(letters, 7))
	}
	for i := 0; i < 600; i++ {
		tell(pick(broken, 6), pick(letters, 4))
	}
}
