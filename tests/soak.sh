#!/usr/bin/env bash
# Trains under launch/run.sh for as long as asked while faults come at random: a rank killed or stopped, a request to
# stop, a full disk. Reports how much of the time went into steps that counted, and whether memory and open files of
# the ranks stay constant. Exit code 1: less than the share asked for, growth, or a run that did not go on.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash tests/soak.sh SECONDS [--faults LEAST MOST] [--share PERCENT] [--ranks N] [--output DIRECTORY]

  SECONDS             how long to train
  --faults LEAST MOST seconds between two faults, drawn anew each time (60 300)
  --share PERCENT     of the time that must have gone into steps that counted (90)
  --ranks N           MPI ranks (2)
  --output DIRECTORY  what the run leaves; otherwise a temporary directory, removed when all is well

Example: bash tests/soak.sh 180 --faults 15 30 --share 60
TEXT
}
refuse() {
  echo "tests/soak.sh: $*; bash tests/soak.sh --help tells more." >&2
  exit 2
}

cd "$(dirname "$0")/.."
seconds='' least=60 most=300 share=90 ranks=2 output=''
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --faults) [ $# -ge 3 ] || refuse "--faults needs two numbers"; least=$2 most=$3; shift 3 ;;
    --share) share=${2:-}; shift 2 ;;
    --ranks) ranks=${2:-}; shift 2 ;;
    --output) output=${2:-}; shift 2 ;;
    *) seconds=$1; shift ;;
  esac
done
for number in "$seconds" "$least" "$most" "$share" "$ranks"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || refuse "'$number' came, expected a whole number"
done
[ "$most" -ge "$least" ] || refuse "--faults $least $most: the second is less than the first"
conclave=${CONCLAVE:-$PWD/build/release/conclave}
[ -x "$conclave" ] || refuse "there is no program $conclave; build it with cmake --build --preset release"

folder=${output:-$(mktemp -d)} mounted='' supervisor=''
mkdir -p "$folder"
finish() {
  touch "$folder/stop"
  if [ -n "$supervisor" ] && kill -0 "$supervisor" 2>/dev/null; then
    for _ in 1 2; do kill -TERM "$(cat "$folder/script")" 2>/dev/null || true; sleep 1; done  # twice: at once
    wait "$supervisor" 2>/dev/null || true
  fi
  if [ -n "$mounted" ]; then umount -l "$folder/run" || true; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

# A file system of its own for the run, so that it can be full without harm to others.
mkdir -p "$folder/run"
if [ -z "$(ls -A "$folder/run")" ] && mount -t tmpfs -o size=96m tmpfs "$folder/run" 2>/dev/null; then mounted=yes; fi
kinds=(kill stop request)
if [ -n "$mounted" ]; then kinds+=(disk); else echo "tests/soak.sh: no file system can be mounted here; no full disks."; fi

awk 'BEGIN { srand(1); for (i = 0; i < 20000; ++i) { for (w = 0; w < 12; ++w) printf "%d ", int(rand() * 500); print "" } }' \
  >"$folder/numbers.txt"
"$conclave" tokenize --output "$folder/numbers" --domain numbers --document-separator line "$folder/numbers.txt" \
  >"$folder/tokenize.log" 2>&1
cat >"$folder/recipe.yaml" <<YAML
name: soak
model: {vocab_size: 264, hidden_size: 128, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2,
        head_dim: 32, moe: {num_experts: 8, num_experts_per_tok: 2, moe_intermediate_size: 128}}
data: {sequence_length: 128, domain_block: 1,
       train: [{path: $folder/numbers, domain: numbers}], validation: [{path: $folder/numbers, domain: numbers}]}
training: {global_batch_size: 16, micro_batch_size: 4, steps: 100000000, watchdog_seconds: 5, threads: 1}
optimizer: {lr: 0.001, schedule: {kind: constant, warmup_steps: 10}}
checkpoint: {interval: 20, keep: 3}
evaluation: {interval: 500, batches: 1}
output: $folder/run
YAML

# Starts run.sh again whenever it ends, as a user or a scheduler would, until told to stop.
supervise() {
  while [ ! -e "$folder/stop" ]; do
    OMP_NUM_THREADS=1 CONCLAVE=$conclave bash launch/run.sh -n "$ranks" --restarts 1000000 "$folder/recipe.yaml" \
      >>"$folder/run.log" 2>&1 &
    echo $! >"$folder/script"
    local code=0
    wait $! || code=$?
    echo "$code" >>"$folder/codes"
    case $code in 2 | 3 | 4) return ;; esac  # nothing that a fault explains
  done
}
rm -f "$folder/stop" "$folder/codes" "$folder/samples"
supervise &
supervisor=$!

# "rank process" of each rank that lives now.
living() {
  "$conclave" ranks "$folder/run" 2>/dev/null |
    sed -n 's/^.*rank \([0-9]*\), process \([0-9]*\).*$/\1 \2/p' |
    while read -r rank process; do
      if grep -qa conclave "/proc/$process/cmdline" 2>/dev/null; then echo "$rank $process"; fi
    done
}
note_resources() {  # seconds, rank, process, resident KB, open files
  living | while read -r rank process; do
    resident=$(awk '/^VmRSS/ { print $2 }' "/proc/$process/status" 2>/dev/null || true)
    files=$(find "/proc/$process/fd" -mindepth 1 2>/dev/null | wc -l)
    if [ -n "$resident" ]; then echo "$SECONDS $rank $process $resident $files" >>"$folder/samples"; fi
  done
}

declare -A count
round=()
fault() {
  if [ ${#round[@]} -eq 0 ]; then mapfile -t round < <(shuf -e "${kinds[@]}"); fi  # each kind once, in any order
  local kind=${round[0]} chosen
  round=("${round[@]:1}")
  chosen=$(living | shuf -n 1 | cut -d' ' -f2)
  count[$kind]=$((${count[$kind]:-0} + 1))
  printf '[%6d s] %s\n' $((SECONDS - begin)) "$kind"
  case $kind in
    kill) if [ -n "$chosen" ]; then kill -KILL "$chosen" 2>/dev/null || true; fi ;;
    stop) if [ -n "$chosen" ]; then kill -STOP "$chosen" 2>/dev/null || true; fi ;;
    request) kill -TERM "$(cat "$folder/script")" 2>/dev/null || true ;;
    disk)  # less than a checkpoint is left for a while
      local free
      free=$(df -k --output=avail "$folder/run" | tail -n 1)
      if [ "$free" -gt 600 ]; then head -c $((free - 600))K /dev/zero >"$folder/run/filler" 2>/dev/null || true; fi
      sleep 8
      rm -f "$folder/run/filler"
      ;;
  esac
}

echo "tests/soak.sh: training for $seconds s on $ranks ranks in $folder, a fault every $least to $most s (${kinds[*]})"
begin=$SECONDS next=$((SECONDS + least + RANDOM % (most - least + 1)))
while [ $((SECONDS - begin)) -lt "$seconds" ] && kill -0 "$supervisor" 2>/dev/null; do
  sleep 1
  if [ $(((SECONDS - begin) % 2)) -eq 0 ]; then note_resources; fi
  if [ "$SECONDS" -ge "$next" ]; then
    fault
    next=$((SECONDS + least + RANDOM % (most - least + 1)))
  fi
done
wall=$((SECONDS - begin))
problems=()
if ! kill -0 "$supervisor" 2>/dev/null; then problems+=("run.sh ended with exit code $(tail -n 1 "$folder/codes")"); fi
touch "$folder/stop"
kill -TERM "$(cat "$folder/script")" 2>/dev/null || true
wait "$supervisor" 2>/dev/null || true
supervisor=''

# metrics.jsonl is cut back to the checkpoint at each start, so that its steps are those that counted.
read -r steps effective < <(grep -o '"step_seconds": [0-9.e+-]*' "$folder/run/metrics.jsonl" |
  awk '{ sum += $2; ++steps } END { printf "%d %.1f\n", steps, sum }')
percent=$(awk -v a="$effective" -v b="$wall" 'BEGIN { printf "%.1f", 100 * a / b }')
if awk -v a="$percent" -v b="$share" 'BEGIN { exit !(a < b) }'; then problems+=("only $percent% of the time counted"); fi
if grep -q 'Use another checkpoint\|use another checkpoint' "$folder/run.log"; then problems+=("a checkpoint was damaged"); fi

# Of each process that lived long enough, the first 3 samples left out: its last third against its first third, and the
# same over all processes of a rank.
growth=$(sort -s -k2,2n -k3,3n -k1,1n "$folder/samples" | awk '
  function judge(n, resident, files, what,   third, i, early, late, early_files, late_files) {
    third = int(n / 3)
    if (third < 2) return
    for (i = 1; i <= third; ++i) {
      early += resident[i] / third; late += resident[n - third + i] / third
      if (files[i] > early_files) early_files = files[i]
      if (files[n - third + i] > late_files) late_files = files[n - third + i]
    }
    ++judged
    if (late > 1.05 * early + 4096) printf "%s grew from %d to %d KB\n", what, early, late
    if (late_files > early_files + 1) printf "%s: open files rose from %d to %d\n", what, early_files, late_files
    if (late > largest) largest = late
    if (late_files > most_files) most_files = late_files
  }
  $3 != process { judge(n, resident, files, "process " process " of rank " rank); n = 0; seen = 0; process = $3; rank = $2 }
  ++seen > 3 { ++n; resident[n] = $4; files[n] = $5 }
  END { judge(n, resident, files, "process " process " of rank " rank)
        printf "judged %d processes, at most %d KB and %d open files\n", judged, largest, most_files }')
if grep -q 'grew\|rose' <<<"$growth"; then problems+=("$(grep 'grew\|rose' <<<"$growth" | head -n 3)"); fi
if ! grep -q 'judged [1-9]' <<<"$growth"; then problems+=("no process lived long enough to judge its memory"); fi

for kind in "${kinds[@]}"; do printf '%-8s %s\n' "$kind" "${count[$kind]:-0}"; done
printf 'wall %d s, %d steps that counted took %s s: %s%% effective\n' "$wall" "$steps" "$effective" "$percent"
tail -n 1 <<<"$growth"
if [ ${#problems[@]} -gt 0 ]; then
  printf 'tests/soak.sh: %s\n' "${problems[@]}"
  echo "tests/soak.sh: failed; $folder/run.log has what the runs said."
  exit 1
fi
echo "tests/soak.sh: well."
if [ -z "$output" ]; then
  finish
  mounted=''
  rm -rf "$folder"
fi
