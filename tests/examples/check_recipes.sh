#!/usr/bin/env bash
# check_recipes.sh CONCLAVE [FOLDER]: `conclave validate` accepts every recipe below FOLDER (examples) on the rank count
# that its line "# ranks: N" names, 1 without one. Missing data is a warning only.
set -u
conclave=$1
folder=${2:-examples}
count=0 mistakes=0
while IFS= read -r recipe; do
  ranks=$(sed -n 's/^# ranks: *\([0-9][0-9]*\) *$/\1/p' "$recipe" | head -n 1)
  ranks=${ranks:-1}
  count=$((count + 1))
  if output=$("$conclave" validate "$recipe" --ranks "$ranks" 2>&1); then
    # An example must not ask for what is not there.
    unexpected=$(grep '^warning: .*not available yet' <<< "$output")
    [ -z "$unexpected" ] && continue
    output=$unexpected
  fi
  echo "$recipe on $ranks ranks: $(tail -n 1 <<< "$output")"
  mistakes=$((mistakes + 1))
done < <(find "$folder" -name '*.yaml' | LC_ALL=C sort)
echo "$count recipes, $mistakes mistakes"
[ "$count" -gt 0 ] && [ "$mistakes" -eq 0 ]
