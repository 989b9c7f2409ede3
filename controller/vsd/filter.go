package vsd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxFilter bounds a filter's length, and with it the depth of its parentheses.
const maxFilter = 4096

// lookup gives an object's value of an attribute: string, bool, int64, []string, or nil
// for null. It is false for an attribute that the object's class does not have.
type lookup func(attribute string) (value any, ok bool)

// predicate is a parsed filter.
type predicate interface {
	match(lookup) bool
	attributes(visit func(string))
}

type (
	both   struct{ a, b predicate }
	either struct{ a, b predicate }
	not    struct{ p predicate }
	// comparison is "attribute operator value". The value null is bare, never quoted.
	comparison struct {
		attribute, operator, value string
		null                       bool
	}
)

func (p both) match(l lookup) bool   { return p.a.match(l) && p.b.match(l) }
func (p either) match(l lookup) bool { return p.a.match(l) || p.b.match(l) }
func (p not) match(l lookup) bool    { return !p.p.match(l) }

func (p both) attributes(f func(string))       { p.a.attributes(f); p.b.attributes(f) }
func (p either) attributes(f func(string))     { p.a.attributes(f); p.b.attributes(f) }
func (p not) attributes(f func(string))        { p.p.attributes(f) }
func (p comparison) attributes(f func(string)) { f(p.attribute) }

func (p comparison) match(l lookup) bool {
	v, _ := l(p.attribute)
	if list, ok := v.([]string); ok {
		for _, s := range list {
			if p.compare(s) {
				return true
			}
		}
		return false
	}
	return p.compare(v)
}

func (p comparison) compare(v any) bool {
	if v == nil || p.null {
		return (v == nil && p.null) == (p.operator == "==") && (p.operator == "==" || p.operator == "!=")
	}
	switch p.operator {
	case "CONTAINS":
		return strings.Contains(textOf(v), p.value)
	case "BEGINSWITH":
		return strings.HasPrefix(textOf(v), p.value)
	case "ENDSWITH":
		return strings.HasSuffix(textOf(v), p.value)
	}
	c := p.order(v)
	switch p.operator {
	case "==":
		return c == 0
	case "!=":
		return c != 0
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	default: // ">=", the parser makes no other
		return c >= 0
	}
}

// order compares v with the filter's value: numbers as numbers, booleans without regard
// to case, everything else as text.
func (p comparison) order(v any) int {
	switch v := v.(type) {
	case int64:
		if f, err := strconv.ParseFloat(p.value, 64); err == nil {
			switch {
			case float64(v) < f:
				return -1
			case float64(v) > f:
				return 1
			}
			return 0
		}
	case bool:
		return strings.Compare(strconv.FormatBool(v), strings.ToLower(p.value))
	}
	return strings.Compare(textOf(v), p.value)
}

func textOf(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []string:
		return strings.Join(v, "\n")
	}
	return fmt.Sprint(v)
}

// parseFilter reads VSD's predicates:
//
//	or         = and { ("or" | "||") and }
//	and        = not { ("and" | "&&") not }
//	not        = ("not" | "!") not | "(" or ")" | comparison
//	comparison = attribute operator value
//	operator   = "==" | "=" | "IS" | "!=" | "<>" | "<" | "<=" | ">" | ">=" | "CONTAINS" | "BEGINSWITH" | "ENDSWITH"
//	value      = 'text' | "text" | bare word
//
// Keywords are matched without regard to case. Text in quotes has no escapes, since
// clients put names into filters as they are.
func parseFilter(s string) (predicate, error) {
	if len(s) > maxFilter {
		return nil, fmt.Errorf("filter: longer than %d bytes", maxFilter)
	}
	p := &filterParser{rest: s}
	p.next()
	pred, err := p.or()
	if p.unclosed {
		return nil, errors.New("filter: a quote is not closed")
	}
	if err == nil && (p.tok != "" || p.quoted) {
		err = p.expected("and, or, or the end")
	}
	if err != nil {
		return nil, err
	}
	return pred, nil
}

// filterParser is a recursive-descent parser with one token of look-ahead. An empty tok
// that is not quoted is the end.
type filterParser struct {
	rest     string
	tok      string
	quoted   bool
	unclosed bool
}

func (p *filterParser) expected(what string) error {
	found := strconv.Quote(p.tok)
	if p.tok == "" && !p.quoted {
		found = "the end"
	}
	return fmt.Errorf("filter: expected %s, found %s", what, found)
}

// symbols are the tokens that end a bare word, longest first.
var symbols = []string{"==", "!=", "<>", "<=", ">=", "&&", "||", "=", "<", ">", "!", "(", ")"}

func symbolAt(s string) string {
	for _, sym := range symbols {
		if strings.HasPrefix(s, sym) {
			return sym
		}
	}
	return ""
}

func (p *filterParser) next() {
	p.rest = strings.TrimLeftFunc(p.rest, unicode.IsSpace)
	p.tok, p.quoted = "", false
	if p.rest == "" {
		return
	}
	if q := p.rest[0]; q == '"' || q == '\'' {
		if end := strings.IndexByte(p.rest[1:], q); end >= 0 {
			p.tok, p.quoted = p.rest[1:1+end], true
			p.rest = p.rest[end+2:]
			return
		}
		p.rest, p.unclosed = "", true
		return
	}
	if sym := symbolAt(p.rest); sym != "" {
		p.tok, p.rest = sym, p.rest[len(sym):]
		return
	}
	n := 0
	for n < len(p.rest) {
		r, size := utf8.DecodeRuneInString(p.rest[n:])
		if unicode.IsSpace(r) || symbolAt(p.rest[n:]) != "" {
			break
		}
		n += size
	}
	p.tok, p.rest = p.rest[:n], p.rest[n:]
}

// accept moves on if the token is one of the words.
func (p *filterParser) accept(words ...string) bool {
	for _, w := range words {
		if !p.quoted && strings.EqualFold(p.tok, w) {
			p.next()
			return true
		}
	}
	return false
}

func (p *filterParser) or() (predicate, error) {
	a, err := p.and()
	for err == nil && p.accept("or", "||") {
		var b predicate
		if b, err = p.and(); err == nil {
			a = either{a, b}
		}
	}
	return a, err
}

func (p *filterParser) and() (predicate, error) {
	a, err := p.not()
	for err == nil && p.accept("and", "&&") {
		var b predicate
		if b, err = p.not(); err == nil {
			a = both{a, b}
		}
	}
	return a, err
}

func (p *filterParser) not() (predicate, error) {
	if p.accept("not", "!") {
		inner, err := p.not()
		return not{inner}, err
	}
	if p.accept("(") {
		inner, err := p.or()
		if err == nil && !p.accept(")") {
			err = p.expected(")")
		}
		return inner, err
	}
	return p.comparison()
}

// operators maps every spelling to the one that comparison knows.
var operators = map[string]string{
	"==": "==", "=": "==", "IS": "==", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
	"CONTAINS": "CONTAINS", "BEGINSWITH": "BEGINSWITH", "ENDSWITH": "ENDSWITH",
}

func (p *filterParser) comparison() (predicate, error) {
	if p.quoted || p.tok == "" || symbolAt(p.tok) != "" {
		return nil, p.expected("an attribute")
	}
	c := comparison{attribute: p.tok}
	p.next()
	c.operator = operators[strings.ToUpper(p.tok)]
	if c.operator == "" || p.quoted {
		return nil, p.expected("an operator (==, !=, <, CONTAINS, …)")
	}
	p.next()
	if !p.quoted && (p.tok == "" || symbolAt(p.tok) != "") {
		return nil, p.expected("a value")
	}
	c.value, c.null = p.tok, !p.quoted && strings.EqualFold(p.tok, "null")
	p.next()
	return c, nil
}
