# Turns a manual page (roff with the man or mdoc macros) into plain text, well enough to learn a language from.
# Macros that print keep their words; all others, comments and font changes go.

# Comments, and the lines that only talk to the formatter.
/^[.']\\"/d
/^[.']\.$/d
s/\\".*$//
/^[.'] *\(TH\|Dd\|Dt\|Os\|so\|nr\|ds\|de\|if\|ie\|el\|ft\|ad\|na\|nh\|hy\|ll\|in\|ti\|ne\|ta\|ev\)\b/d
/^[.'] *\(IX\|UR\|UE\|MT\|ME\|Bl\|El\)\b/d

# Headings and paragraphs begin after an empty line.
s/^[.'] *\(SH\|SS\|Sh\|Ss\|IP\) *"\{0,1\}\([^"]*\)"\{0,1\}.*/\n\2/
s/^[.'] *\(PP\|P\|LP\|TP\|HP\|Pp\|sp\|RS\|RE\|br\|nf\|fi\|EX\|EE\|PD\|TQ\|TS\|TE\)\b.*//

# Any other short macro sets its arguments in some font; what is then left of requests goes.
s/^[.'] *[A-Za-z][A-Za-z]\{0,2\}\( \|$\)//
s/^[.'].*//

# Fonts, sizes, colours, registers and movements.
s/\\f\[[^]]*\]//g
s/\\f([A-Z][A-Z]//g
s/\\f.//g
s/\\s[-+]\{0,1\}[0-9]//g
s/\\[mn]\[[^]]*\]//g
s/\\[hvw]'[^']*'//g
s/\\[ud]//g

# Characters by name.
s/\\[([]\([aco]q\)\]\{0,1\}/'/g
s/\\[([]\([lrd]q\)\]\{0,1\}/"/g
s/\\(em/--/g
s/\\(en/-/g
s/\\(bu/*/g
s/\\(co/(C)/g
s/\\(ha/^/g
s/\\(ti/~/g
s/\\(rs/\\e/g
s/\\\*(../ /g
s/\\\*\[[^]]*\]//g
s/\\([a-z*][a-z*]//g
s/\\\[[^]]*\]//g

# Spaces of no or some width, and escaped characters; the escaped backslash last.
s/\\[&|^,/:%c]//g
s/\\[ ~0]/ /g
s/\\\([-.'`]\)/\1/g
s/\\e/\\/g
