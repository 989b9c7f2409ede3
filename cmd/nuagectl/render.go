package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"sigs.k8s.io/yaml"
)

// escape makes text of others safe for a terminal and for one cell of a table: what does
// not print is shown as Go would write it.
func escape(s string) string {
	if strings.IndexFunc(s, unprintable) < 0 && strings.ToValidUTF8(s, "") == s {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar && s[i] != "\uFFFD"[0]:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unprintable(r) && r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case unprintable(r) && r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		case unprintable(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// escapeLines is escape for a message of several lines.
func escapeLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = escape(l)
	}
	return strings.Join(lines, "\n")
}

// writeJSON indents JSON, with what does not print as \u escapes.
func writeJSON(w io.Writer, text []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(text), "", "  "); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	var safe strings.Builder
	for _, r := range b.String() {
		switch {
		case r == '\n' || !unprintable(r):
			safe.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&safe, `\u%04x`, r)
		default:
			hi, lo := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			fmt.Fprintf(&safe, `\u%04x\u%04x`, hi, lo)
		}
	}
	_, err := fmt.Fprintln(w, safe.String())
	return err
}

func writeYAML(w io.Writer, text []byte) error {
	out, err := yaml.JSONToYAML(text)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	_, err = w.Write(out)
	return err
}

// object is one object of the API. Numbers stay as they are written.
type object map[string]any

func decodeObjects(text []byte) ([]object, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var list []object
	if err := dec.Decode(&list); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	return list, nil
}

// text is the value at a path of keys with dots, as a table shows it.
func (o object) text(path string) string {
	var v any = map[string]any(o)
	for key := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case []any:
		words := make([]string, len(v))
		for i, x := range v {
			words[i] = fmt.Sprint(x)
		}
		return strings.Join(words, ",")
	}
	return fmt.Sprint(v)
}

// list are the objects in the list at a key.
func (o object) list(key string) []object {
	values, _ := o[key].([]any)
	var list []object
	for _, v := range values {
		if m, ok := v.(map[string]any); ok {
			list = append(list, m)
		}
	}
	return list
}

// column is one column of a table.
type column struct {
	title string
	value func(object) string
}

// key is a column that shows the value at a path.
func key(title, path string) column {
	return column{title, func(o object) string { return o.text(path) }}
}

// writeTable aligns the columns. An empty cell is a dash, so that columns can be counted.
func writeTable(w io.Writer, columns []column, list []object) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	line := func(cell func(column) string) {
		for i, c := range columns {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, cell(c))
		}
		fmt.Fprintln(t)
	}
	line(func(c column) string { return c.title })
	for _, o := range list {
		line(func(c column) string {
			if v := escape(c.value(o)); v != "" {
				return v
			}
			return "-"
		})
	}
	return t.Flush()
}
