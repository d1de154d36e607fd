#!/usr/bin/env bash
# Holds documents to their word: check_documents.sh ROOT [FILE...]; without files *.md and docs/*.md.
#   - a relative link leads to a file or folder that exists (headings behind # are not looked at);
#   - a block of code that begins with ```LANGUAGE file=PATH is in that file: the same lines in a row, but for
#     indentation, where a line "..." in the block stands for any lines left out.
# Prints one sentence per mistake, FILE:LINE first.
set -euo pipefail

cd "$1"
shift
if [ $# -eq 0 ]; then set -- *.md docs/*.md; fi

# Lines of a document with code taken out: text between backticks, and blocks.
links() {
  awk '/^ *```/ { inside = !inside; print ""; next } inside { print ""; next } { gsub(/`[^`]*`/, ""); print }' "$1" |
    { grep -noE '\]\([^)]+\)' || true; } | sed -E 's/^([0-9]+):\]\(([^)]+)\)$/\1 \2/'
}

# Whether the lines of file 1 are in file 2.
excerpt_is_in() {
  awk '
    { gsub(/^[ \t]+|[ \t\r]+$/, "") }
    NR == FNR { wanted[++count] = $0; next }
    { have[++lines] = $0 }
    function found(w, h, at) {                 # wanted[w ...] at have[h ...]
      for (; w <= count && wanted[w] != "..."; ++w) if (h > lines || have[h++] != wanted[w]) return 0
      if (w > count) return 1
      for (at = h; at <= lines + 1; ++at) if (found(w + 1, at)) return 1
      return 0
    }
    END { for (at = 1; at <= lines; ++at) if (found(1, at)) exit 0; exit 1 }' "$1" "$2"
}

excerpt=$(mktemp)
trap 'rm -f "$excerpt"' EXIT
mistakes=0 checked=0
complain() { echo "$*"; mistakes=$((mistakes + 1)); }

for document in "$@"; do
  while read -r line target; do
    case $target in *://* | mailto:* | '#'*) continue ;; esac
    checked=$((checked + 1))
    [ -e "$(dirname "$document")/${target%%#*}" ] ||
      complain "$document:$line: the link to $target leads nowhere"
  done < <(links "$document")

  while IFS=: read -r line opening; do
    path=${opening##*file=}
    checked=$((checked + 1))
    awk -v after="$line" 'NR > after { if (/^ *```/) exit; print }' "$document" >"$excerpt"
    if [ ! -f "$path" ]; then
      complain "$document:$line: there is no file $path to have code from"
    elif ! excerpt_is_in "$excerpt" "$path"; then
      complain "$document:$line: this code is not in $path"
    fi
  done < <(grep -nE '^ *```[a-z]+ file=' "$document" || true)
done

echo "documents: $mistakes mistakes in $checked links and excerpts of $# documents"
[ "$mistakes" -eq 0 ] && [ "$checked" -gt 0 ]
