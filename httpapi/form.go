package httpapi

import "strings"

// parseForm parses an urlencoded body. A name that comes twice, or with brackets,
// is not a string and so no valid field.
func parseForm(text string) *fields {
	f := &fields{top: kindObject}
	for pair := range strings.SplitSeq(text, "&") {
		name, text, _ := strings.Cut(pair, "=")
		name = decodeFormComponent(name)
		if name == "" {
			continue
		}
		v := f.field(name)
		switch {
		case v == nil:
			f.unknown++
		case v.kind == kindUndefined:
			*v = value{kindString, decodeFormComponent(text)}
		default:
			*v = value{kind: kindArray}
		}
	}
	return f
}

// decodeFormComponent decodes as decodeComponent does, and '+' as a space.
func decodeFormComponent(s string) string {
	return decodeComponent(strings.ReplaceAll(s, "+", " "))
}
