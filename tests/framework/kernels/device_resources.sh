#!/usr/bin/env bash
# Tabulates registers, shared memory and spills per kernel and GPU from what ptxas said while the build directory was
# built (cmake/keep_ptxas_log.sh). Fails on a spill that device_spills.txt does not list with
# its bytes and a reason, and on a line there that no kernel needs.
# Usage: device_resources.sh SOURCE_DIRECTORY BUILD_DIRECTORY ARCHITECTURE...
set -euo pipefail

source=$1 build=$2
shift 2
allowed=$source/tests/framework/kernels/device_spills.txt
table=$build/device_resources.txt
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

find "$build" -name '*.ptxas' -print0 | while IFS= read -r -d '' log; do
  if [ -e "${log%.ptxas}" ]; then cat "$log"; fi  # of a source that was taken out nothing is left but its log
done >"$scratch/log"

# ptxas says three lines for each kernel: its mangled name and GPU, stack and spills, registers and shared memory.
c++filt <"$scratch/log" | awk '
  /Compiling entry function/ {
    name = $0; sub(/.*entry function .(static )?/, "", name); sub(/. for .sm_.*/, "", name)
    sub(/^void /, "", name); gsub(/conclave::cuda::/, "", name); gsub(/conclave::/, "", name)
    gpu = $0; sub(/.* for ./, "", gpu); sub(/[^a-z0-9_].*/, "", gpu)
    depth = 0; short = ""
    for (i = 1; i <= length(name); ++i) {  # up to the parameters
      letter = substr(name, i, 1)
      if (letter == "(" && depth == 0) break
      if (letter == "<") ++depth
      if (letter == ">") --depth
      short = short letter
    }
  }
  /bytes stack frame/ { stack = $1; spills = $5 + $9 }
  /Used [0-9]+ registers/ {
    registers = $5; shared = 0
    if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH) + 0
    printf "%s\t%s\t%d\t%d\t%d\t%d\n", short, gpu, registers, shared, stack, spills
  }' | sort -u >"$scratch/rows"

# One line per kernel: registers by GPU, and the most of everything else.
awk -F'\t' -v OFS='\t' -v gpus="$*" '
  BEGIN { count = split(gpus, order, " "); line = "kernel"
          for (i = 1; i <= count; ++i) line = line OFS "registers sm_" order[i]
          print line, "static shared", "stack", "spilled bytes" }
  function most(table, name, value) { if (value > table[name]) table[name] = value }
  { names[$1]; registers[$1, $2] = $3; most(shared, $1, $4); most(stack, $1, $5); most(spilled, $1, $6) }
  END { for (name in names) {
          line = name
          for (i = 1; i <= count; ++i) line = line OFS registers[name, "sm_" order[i]]
          print line, shared[name] + 0, stack[name] + 0, spilled[name] + 0 | "sort" } }' "$scratch/rows" >"$table"
kernels=$(cut -f1 "$scratch/rows" | sort -u | wc -l)
echo "device_resources: $kernels kernels for $# GPUs in $table"
if [ "$kernels" -lt 40 ]; then echo "device_resources: expected 40 kernels or more" >&2; exit 1; fi
for architecture in "$@"; do
  found=$(cut -f2 "$scratch/rows" | grep -cx "sm_$architecture" || true)
  if [ "$found" -ne "$kernels" ]; then
    echo "device_resources: $found of $kernels kernels were compiled for sm_$architecture" >&2
    exit 1
  fi
done

# What the table says was spilled, against device_spills.txt: kernel, most bytes, reason.
awk -F'\t' -v allowed="$allowed" '
  function fail(what) { print "device_resources: " what > "/dev/stderr"; bad = 1 }
  BEGIN {
    while ((read = (getline line < allowed)) > 0) {
      if (line ~ /^#/ || line == "") continue
      count = split(line, field, "\t")
      if (count != 3 || field[2] !~ /^[1-9][0-9]*$/ || field[3] == "" || field[1] in most)
        fail("in " allowed ", expected a kernel of its own, bytes and a reason, separated by tabs: " line)
      most[field[1]] = field[2] + 0
    }
    if (read < 0) fail("cannot read " allowed)
  }
  FNR > 1 && $NF > 0 {
    spills[$1]
    if (!($1 in most)) fail($1 " spills " $NF " bytes, and " allowed " does not list it")
    else if ($NF > most[$1]) fail($1 " spills " $NF " bytes, and " allowed " allows " most[$1])
  }
  END {
    for (kernel in most)
      if (!(kernel in spills)) fail("no kernel needs the line of " kernel " in " allowed "; take it out")
    exit bad
  }' "$table"
