#!/usr/bin/env bash
# A file is read at once, and a target is built at once: no file of code has more than 400 lines, tests included, and no
# target has more than a quarter of the code of the libraries and the command.
#     bash tests/structure/sizes.sh SOURCES   # lines of "TARGET path", from the root
set -euo pipefail
most_lines=400 failed=0

while read -r lines file; do
  if [ "$file" != total ] && [ "$lines" -gt "$most_lines" ]; then
    echo "$file has $lines lines, expected at most $most_lines: look for its second noun." >&2
    failed=1
  fi
done < <(find examples framework launch layers optim parallel tests -type f \
  \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.sh' -o -name '*.py' \) -print0 | xargs -0 wc -l)

# A header counts with the source that has its name.
awk '
  { size = 0
    header = $2
    sub(/\.(cpp|cu)$/, ".h", header)
    while ((getline line < $2) > 0) ++size
    close($2)
    if (header != $2) { while ((getline line < header) > 0) ++size; close(header) }
    lines[$1] += size
    all += size }
  END {
    if (all == 0) { print "The list of sources is empty, so this test sees nothing."; exit 1 }
    for (target in lines) {
      if (lines[target] > largest) { largest = lines[target]; name = target }
      if (lines[target] * 4 > all) {
        print target " has " lines[target] " of " all " lines, expected at most a quarter: divide its folder."
        bad = 1
      }
    }
    printf "The largest target is %s with %d of %d lines, %.0f percent.\n", name, largest, all, 100 * largest / all
    exit bad
  }' "$1" || failed=1
exit "$failed"
