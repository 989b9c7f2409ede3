package main

import (
	"encoding/json"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain é 網 🙂":       "plain é 網 🙂",
		"\x1b[31mred\n\t\r": `\x1b[31mred\x0a\x09\x0d`,
		"\u009b1m\u202e":    `\u009b1m\u202e`,
		"\U000e0001":        `\U000e0001`,
		"a\xffb":            `a\xffb`,
		"�":                 "�",
		"":                  "",
	} {
		if got := escape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := escapeLines("a\x07\nb"); got != "a\\x07\nb" {
		t.Errorf("lines: %q", got)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("\x1b]0;\x07\xc3\u0085\xed\xa0\x80")
	f.Fuzz(func(t *testing.T, s string) {
		e := escape(s)
		if strings.IndexFunc(e, unprintable) >= 0 || !utf8.ValidString(e) {
			t.Fatalf("%q is not safe: %q", s, e)
		}
	})
}

func TestWriteJSON(t *testing.T) {
	in := map[string]string{"a": "\x1b\u009b\u2028é\U000e0001<&>\x7f"}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := writeJSON(&b, text); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexFunc(strings.ReplaceAll(b.String(), "\n", ""), unprintable); i >= 0 {
		t.Errorf("not safe: %q", b.String())
	}
	var out map[string]string
	if err := json.Unmarshal([]byte(b.String()), &out); err != nil || out["a"] != in["a"] {
		t.Errorf("%q (%v) is not %q", out["a"], err, in["a"])
	}
	if err := writeJSON(&b, []byte("{")); err == nil {
		t.Error("half an answer is taken for one")
	}
}

func TestTable(t *testing.T) {
	list, err := decodeObjects([]byte(`[{"name":"a\u001b","n":12345678901,"deep":{"x":"y"},"yes":true,"l":["p","q"]},{"name":"longer"}]`))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := writeTable(&b, []column{key("NAME", "name"), key("N", "n"), key("DEEP", "deep.x"), key("YES", "yes"), key("LIST", "l")}, list); err != nil {
		t.Fatal(err)
	}
	want := "NAME     N             DEEP   YES   LIST\na\\x1b    12345678901   y      yes   p,q\nlonger   -             -      -     -\n"
	if b.String() != want {
		t.Errorf("table:\n%s", b.String())
	}
}

func TestUnreachable(t *testing.T) {
	c := &client{base: "http://nuage", name: "/run/x.sock"}
	dial := func(errno syscall.Errno) error {
		return &url.Error{Op: "Get", URL: "http://nuage/x", Err: &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", errno)}}
	}
	for errno, want := range map[syscall.Errno]string{
		syscall.ENOENT:       "nuage is not running on this host (/run/x.sock): docker plugin enable nuage-plugin",
		syscall.ECONNREFUSED: "nuage is not running on this host (/run/x.sock)",
		syscall.EACCES:       "no permission for /run/x.sock: run nuagectl as root",
		syscall.EMFILE:       "/run/x.sock: dial unix: connect: too many open files",
	} {
		if got := c.unreachable(dial(errno)).Error(); !strings.HasPrefix(got, want) {
			t.Errorf("%v: %q, want %q", errno, got, want)
		}
	}
}
