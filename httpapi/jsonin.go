package httpapi

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"

	"trivet/trivetpb"
)

// decoder reads one JSON document that has a known form. It is stricter than
// encoding/json: a field that the form does not know or that comes twice, a
// null, a number that is no plain integer, text that is no UTF-8 or has half a
// surrogate pair, and anything behind the document are errors. Since nothing
// unknown is ever skipped, what is nested no deeper than the forms are.
//
// Decoded strings are copies; the input may be used again.
type decoder struct {
	data []byte
	pos  int
	// elements counts the operations, comparisons and guards so far.
	elements int
}

// jsonError is what is wrong and where: the path of fields, filled in on the way
// out, and the byte.
type jsonError struct {
	path []string
	pos  int
	text string
	// refused is set where nothing is malformed: there is too much of it.
	refused *trivetpb.Problem
}

func (e *jsonError) Error() string { return e.text }

// in adds a step to the path, from the inside out.
func (e *jsonError) in(step string) *jsonError {
	if e != nil {
		e.path = append(e.path, step)
	}
	return e
}

// problem says it to the caller: "ops[3].delta: … (byte 112)".
func (e *jsonError) problem() *trivetpb.Problem {
	if e.refused != nil {
		return e.refused
	}
	var where strings.Builder
	for i := len(e.path) - 1; i >= 0; i-- {
		if where.Len() > 0 && e.path[i][0] != '[' {
			where.WriteByte('.')
		}
		where.WriteString(e.path[i])
	}
	if where.Len() == 0 {
		where.WriteString("the document")
	}
	return badRequest("%s: %s (byte %d)", where.String(), e.text, e.pos)
}

func (d *decoder) fail(format string, args ...any) *jsonError {
	return &jsonError{pos: d.pos, text: fmt.Sprintf(format, args...)}
}

// skipSpace moves to the next byte that is no white space and returns it, 0 at
// the end.
func (d *decoder) skipSpace() byte {
	for ; d.pos < len(d.data); d.pos++ {
		switch ch := d.data[d.pos]; ch {
		case ' ', '\t', '\r', '\n':
		default:
			return ch
		}
	}
	return 0
}

// expect takes the given byte.
func (d *decoder) expect(ch byte, what string) *jsonError {
	if d.skipSpace() != ch {
		return d.unexpected(what)
	}
	d.pos++
	return nil
}

func (d *decoder) unexpected(what string) *jsonError {
	if d.pos >= len(d.data) {
		return d.fail("expected %s, found the end", what)
	}
	return d.fail("expected %s", what)
}

// end reads the end of the document.
func (d *decoder) end() *jsonError {
	if d.skipSpace(); d.pos < len(d.data) {
		return d.fail("there is something behind the document")
	}
	return nil
}

// fieldSet is which fields of a form are present, by their place in it.
type fieldSet uint32

func fields(places ...int) fieldSet {
	var s fieldSet
	for _, p := range places {
		s |= 1 << p
	}
	return s
}

func (s fieldSet) has(place int) bool { return s&(1<<place) != 0 }

// first returns the first field of the set by name.
func (s fieldSet) first(form []string) string {
	return form[bits.TrailingZeros32(uint32(s))]
}

// object reads an object whose fields are those of form, each once at most, and
// calls read with the place of each. It returns those that were there.
func (d *decoder) object(form []string, read func(place int) *jsonError) (fieldSet, *jsonError) {
	var seen fieldSet
	if err := d.expect('{', "an object"); err != nil {
		return seen, err
	}
	if d.skipSpace() == '}' {
		d.pos++
		return seen, nil
	}
	for {
		at := d.pos
		raw, err := d.raw()
		if err != nil {
			return seen, err
		}
		place := indexOf(form, raw)
		if place < 0 {
			d.pos = at
			return seen, d.fail("unknown field %s", quote(string(raw)))
		}
		name := form[place]
		if seen.has(place) {
			d.pos = at
			return seen, d.fail("field %s is given more than once", name)
		}
		seen |= 1 << place
		if err := d.expect(':', "a colon"); err != nil {
			return seen, err.in(name)
		}
		if err := read(place); err != nil {
			return seen, err.in(name)
		}
		switch d.skipSpace() {
		case ',':
			d.pos++
		case '}':
			d.pos++
			return seen, nil
		default:
			return seen, d.unexpected("a comma or the end of the object")
		}
	}
}

func indexOf(form []string, name []byte) int {
	for i, f := range form {
		if f == string(name) {
			return i
		}
	}
	return -1
}

// element counts an operation, comparison or guard of the document.
func (d *decoder) element() *jsonError {
	if d.elements++; d.elements > maxElements {
		return &jsonError{refused: tooManyElements()}
	}
	return nil
}

// array reads an array.
func (d *decoder) array(read func() *jsonError) *jsonError {
	if err := d.expect('[', "an array"); err != nil {
		return err
	}
	if d.skipSpace() == ']' {
		d.pos++
		return nil
	}
	for n := 0; ; n++ {
		if err := read(); err != nil {
			return err.in("[" + strconv.Itoa(n) + "]")
		}
		switch d.skipSpace() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			return nil
		default:
			return d.unexpected("a comma or the end of the array")
		}
	}
}

// bool reads true or false.
func (d *decoder) bool() (bool, *jsonError) {
	d.skipSpace()
	for _, v := range []bool{true, false} {
		word := strconv.FormatBool(v)
		if strings.HasPrefix(string(d.data[d.pos:min(d.pos+len(word), len(d.data))]), word) {
			d.pos += len(word)
			return v, nil
		}
	}
	return false, d.unexpected("true or false")
}

// uint reads an integer from 0 to most.
func (d *decoder) uint(most uint64) (uint64, *jsonError) {
	text, err := d.number()
	if err != nil {
		return 0, err
	}
	n, ok := parseDigits(text)
	if !ok || n > most {
		d.pos -= len(text)
		return 0, d.fail("must be an integer from 0 to %d", most)
	}
	return n, nil
}

// int64 reads an integer of 64 bits with sign.
func (d *decoder) int64() (int64, *jsonError) {
	text, err := d.number()
	if err != nil {
		return 0, err
	}
	digits := strings.TrimPrefix(text, "-")
	n, parseErr := strconv.ParseInt(text, 10, 64)
	if parseErr != nil || (digits[0] == '0' && len(digits) > 1) {
		d.pos -= len(text)
		return 0, d.fail("must be an integer of 64 bits with sign")
	}
	return n, nil
}

// number takes what looks like a number, whatever its form: which of these are
// integers is for the caller to say.
func (d *decoder) number() (string, *jsonError) {
	ch := d.skipSpace()
	if ch != '-' && (ch < '0' || ch > '9') {
		return "", d.unexpected("an integer")
	}
	from := d.pos
	for d.pos < len(d.data) && strings.IndexByte("+-0123456789.eE", d.data[d.pos]) >= 0 {
		d.pos++
	}
	text := string(d.data[from:d.pos])
	if text == "-" {
		d.pos = from
		return "", d.unexpected("an integer")
	}
	return text, nil
}

// text reads a string.
func (d *decoder) text() (string, *jsonError) {
	raw, err := d.raw()
	return string(raw), err
}

// raw reads a string, which aliases the document where it has no escapes. It is not
// nil but for an error, and its capacity is clipped.
func (d *decoder) raw() ([]byte, *jsonError) {
	if err := d.expect('"', "a string"); err != nil {
		return nil, err
	}
	from := d.pos
	d.pos += plainText(d.data[from:])
	for d.pos < len(d.data) {
		switch ch := d.data[d.pos]; {
		case ch == '"':
			raw := d.data[from:d.pos:d.pos]
			if !utf8.Valid(raw) {
				d.pos = from
				return nil, d.fail("the string is not valid UTF-8")
			}
			d.pos++
			return raw, nil
		case ch == '\\':
			return d.escaped(from)
		case ch < ' ':
			return nil, d.fail("a control character in a string must be escaped")
		default:
			d.pos++
		}
	}
	return nil, d.unexpected("the end of the string")
}

// plainText is how many bytes are certainly neither a quote nor a backslash nor a
// control character, eight at a time: most of a value in base64. Each of the four terms
// has the high bit of a byte where that is (or the byte before it was) such a one, by
// https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord; bytes that are not
// ASCII are left to who looks at each.
func plainText(b []byte) (n int) {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for len(b)-n >= 8 {
		w := binary.LittleEndian.Uint64(b[n:])
		quote, backslash := w^('"'*ones), w^('\\'*ones)
		if (w|(w-' '*ones)|(quote-ones)|(backslash-ones))&highs != 0 {
			return n
		}
		n += 8
	}
	return n
}

// escaped reads on in a string that started at from and has its first escape
// here.
func (d *decoder) escaped(from int) ([]byte, *jsonError) {
	out := append(make([]byte, 0, d.pos-from+32), d.data[from:d.pos]...)
	for d.pos < len(d.data) {
		switch ch := d.data[d.pos]; {
		case ch == '"':
			if !utf8.Valid(out) {
				d.pos = from
				return nil, d.fail("the string is not valid UTF-8")
			}
			d.pos++
			return out, nil
		case ch == '\\':
			r, err := d.escape()
			if err != nil {
				return nil, err
			}
			out = utf8.AppendRune(out, r)
		case ch < ' ':
			return nil, d.fail("a control character in a string must be escaped")
		default:
			out = append(out, ch)
			d.pos++
		}
	}
	return nil, d.unexpected("the end of the string")
}

// escape reads one escape, both halves of a surrogate pair at once.
func (d *decoder) escape() (rune, *jsonError) {
	if d.pos+1 >= len(d.data) {
		d.pos = len(d.data)
		return 0, d.unexpected("the rest of an escape")
	}
	if d.data[d.pos+1] != 'u' {
		i := strings.IndexByte(`"\/bfnrt`, d.data[d.pos+1])
		if i < 0 {
			return 0, d.fail("unknown escape")
		}
		d.pos += 2
		return rune("\"\\/\b\f\n\r\t"[i]), nil
	}
	high, ok := d.unit(d.pos)
	if !ok {
		return 0, d.fail("malformed \\u escape")
	}
	if high < 0xd800 || high > 0xdfff {
		d.pos += 6
		return high, nil
	}
	low, ok := d.unit(d.pos + 6)
	if high > 0xdbff || !ok || low < 0xdc00 || low > 0xdfff {
		return 0, d.fail("half a surrogate pair is no text, give the bytes as base64")
	}
	d.pos += 12
	return (high-0xd800)<<10 | (low - 0xdc00) + 0x10000, nil
}

// unit reads \uXXXX at the given place.
func (d *decoder) unit(at int) (rune, bool) {
	if at+6 > len(d.data) || d.data[at] != '\\' || d.data[at+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, ch := range d.data[at+2 : at+6] {
		switch {
		case ch >= '0' && ch <= '9':
			r = r<<4 | rune(ch-'0')
		case ch >= 'a' && ch <= 'f':
			r = r<<4 | rune(ch-'a'+10)
		case ch >= 'A' && ch <= 'F':
			r = r<<4 | rune(ch-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
