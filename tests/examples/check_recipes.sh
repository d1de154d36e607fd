#!/usr/bin/env bash
# check_recipes.sh CONCLAVE [--write] [FOLDER]: every recipe below FOLDER (examples) is accepted by `conclave validate` on
# the rank count that its line "# ranks: N" names (1 without one), and on each layout that its head lists, a line each:
#   #   64 ranks  12.3 GB  4.5 GB  parallel.expert=8
# ranks, memory of a rank ("all, expected"), what a rank sends in a step ("all"), overrides if any. The figures must be
# those that validate plans; --write puts them there. Missing data is a warning only.
set -u
conclave=$1
shift
write=''
if [ "${1:-}" = --write ]; then write=yes; shift; fi
folder=${1:-examples}
count=0 layouts=0 mistakes=0
complain() { echo "$*"; mistakes=$((mistakes + 1)); }

# accepted RECIPE RANKS [OVERRIDE...]: sets output; says why when it is not.
accepted() {
  local recipe=$1 ranks=$2 unexpected
  shift 2
  if output=$("$conclave" validate "$recipe" --ranks "$ranks" "$@" 2>&1); then
    # An example must not ask for what is not there.
    unexpected=$(grep '^warning: .*not available yet' <<<"$output") || return 0
    output=$unexpected
  fi
  complain "$recipe on $ranks ranks${*:+ with $*}: $(tail -n 1 <<<"$output")"
  return 1
}
# The figure of a row of validate's output, behind a heading: "Memory per rank" "all, expected".
figure() { sed -n "/^$1/,/^\$/s/^  $2  *\([0-9.]* [kMGTPE]*B\).*/\1/p" <<<"$output" | head -n 1; }

while IFS= read -r recipe; do
  count=$((count + 1))
  ranks=$(sed -n 's/^# ranks: *\([0-9][0-9]*\) *$/\1/p' "$recipe" | head -n 1)
  accepted "$recipe" "${ranks:-1}" || continue
  listed=0
  while IFS= read -r line; do
    listed=$((listed + 1)) layouts=$((layouts + 1))
    read -r _ ranks word memory memory_unit network network_unit overrides <<<"$line"
    # shellcheck disable=SC2086 # overrides are words
    accepted "$recipe" "$ranks" $overrides || continue
    planned="$(figure 'Memory per rank' 'all, expected')  $(figure 'Network per rank' 'all')"
    [ "$memory $memory_unit  $network $network_unit" != "$planned" ] || continue
    if [ -n "$write" ]; then
      new="#   $ranks $word  $planned${overrides:+  $overrides}"
      awk -v old="$line" -v new="$new" '$0 == old { print new; next } { print }' "$recipe" >"$recipe.new" &&
        mv "$recipe.new" "$recipe"
    else
      complain "$recipe on $ranks ranks${overrides:+ with $overrides}: its head says $memory $memory_unit and $network $network_unit, planned are $planned"
    fi
  done < <(grep -E '^#   [0-9]+ ranks?  [0-9.]+ [kMGTPE]*B  [0-9.]+ [kMGTPE]*B(  |$)' "$recipe")
  [ "$listed" -gt 0 ] || complain "$recipe: its head lists no layout with memory and bytes"
  case $recipe in
    */cluster/*)
      for ranks in 8 512; do
        grep -qE "^#   $ranks ranks  " "$recipe" || complain "$recipe: no layout for $ranks ranks is listed"
      done
      ;;
  esac
done < <(find "$folder" -name '*.yaml' | LC_ALL=C sort)
echo "$count recipes with $layouts layouts, $mistakes mistakes"
[ "$count" -gt 0 ] && [ "$mistakes" -eq 0 ]
