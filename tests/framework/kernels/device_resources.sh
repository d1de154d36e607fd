#!/usr/bin/env bash
# Compiles the device code for every GPU of the build and tabulates registers, shared memory and spills per kernel.
# Fails on a spill that device_spills.txt does not list with a reason.
# Usage: device_resources.sh NVCC SOURCE_DIRECTORY TABLE ARCHITECTURE...
set -euo pipefail

nvcc=$1 source=$2 table=$3
shift 3
allowed=$source/tests/framework/kernels/device_spills.txt
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
targets=()
for architecture in "$@"; do targets+=(-gencode "arch=compute_$architecture,code=sm_$architecture"); done

for file in "$source"/framework/kernels/cuda/*.cu; do
  nice "$nvcc" -std=c++20 -O3 --expt-relaxed-constexpr -Werror=all-warnings "${targets[@]}" -Xptxas -v -I "$source" \
    -c "$file" -o "$scratch/object" 2>>"$scratch/log" || { cat "$scratch/log" >&2; exit 1; }
done

# ptxas says three lines for each kernel: its mangled name and GPU, stack and spills, registers and shared memory.
c++filt <"$scratch/log" | awk '
  /Compiling entry function/ {
    name = $0; sub(/.*entry function .(static )?/, "", name); sub(/. for .sm_.*/, "", name)
    sub(/^void /, "", name); gsub(/conclave::cuda::/, "", name)
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

mkdir -p "$(dirname "$table")"
{ printf 'kernel\tGPU\tregisters\tstatic shared bytes\tstack bytes\tspilled bytes\n'; cat "$scratch/rows"; } >"$table"
kernels=$(cut -f1 "$scratch/rows" | sort -u | wc -l)
echo "device_resources: $kernels kernels for $# GPUs in $table"
if [ "$kernels" -lt 30 ]; then echo "device_resources: expected 30 kernels or more" >&2; exit 1; fi

# A line of device_spills.txt: kernel, a colon, the reason.
bad=0
while IFS=$'\t' read -r kernel gpu registers shared stack spilled; do
  if [ "$spilled" -gt 0 ] && ! grep -qF "$kernel:" "$allowed"; then
    echo "device_resources: $kernel spills $spilled bytes on $gpu ($registers registers, $stack bytes of stack)" >&2
    bad=1
  fi
done <"$scratch/rows"
exit $bad
