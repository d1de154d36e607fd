# shellcheck shell=bash
# Trains and measures many runs, some of them side by side, and goes on where it was stopped. To be sourced by the
# studies' run.sh, which are then in the root of the repository.
#
# A run is a line of fields with tabs between them: DIRECTORY RANKS RECIPE [key=value ...]. It is done when its
# directory has evaluation.json, what `conclave evaluate --json` says of its last checkpoint. run.txt there has the line
# and the checksums of recipe and text, so that no run of other settings is taken for it; made_by.txt says which program
# and processor made it.
# A study that measures more exports a function measure_more DIRECTORY, which is called before that. One that notes
# finished runs exports run_ended, which is called after.
script=$(realpath "$0")
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../.." || exit
conclave=build/release/conclave
export conclave
export OMP_NUM_THREADS=1

# usage: the script's first comment, as help; the exit code is that of a wrong request
usage() {
  awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$script" >&2
  exit 2
}

# run_line DIRECTORY RANKS RECIPE [key=value ...]: prints such a line
run_line() { local IFS=$'\t'; printf '%s\n' "$*"; }

# settings_of LINE: what run.txt has
settings_of() {
  local recipe
  IFS=$'\t' read -r _ _ recipe _ <<<"$1"
  printf '%s\nrecipe %s\ntext %s\n' "$1" "$(grep -v '^#' "$recipe" | cksum)" "$text_checksum"
}

# is_done LINE: whether the run is; ends the study with a sentence where its directory holds another
is_done() {
  local directory=${1%%$'\t'*}
  [ -f "$directory/run.txt" ] || return 1
  if [ "$(cat "$directory/run.txt")" != "$(settings_of "$1")" ]; then
    echo "$directory holds a run of other settings, as its run.txt says; remove it, or move it out of runs/studies" >&2
    exit 2
  fi
  [ -f "$directory/evaluation.json" ]
}

# train_and_measure LINE: one run from its beginning, or from where it was stopped, to its measures
train_and_measure() {
  local directory ranks recipe overrides start=$SECONDS code=0
  IFS=$'\t' read -r directory ranks recipe overrides <<<"$1"
  IFS=$'\t' read -r -a overrides <<<"$overrides"
  mkdir -p "$directory"
  settings_of "$1" >"$directory/run.txt"
  made_by >>"$directory/made_by.txt"
  local command=("$conclave")
  if [ "$ranks" -gt 1 ]; then
    command=(mpirun -n "$ranks" --oversubscribe --bind-to none --mca mpi_yield_when_idle 1)
    [ "$(id -u)" -ne 0 ] || command+=(--allow-run-as-root)
    command+=("$conclave")
  fi
  "${command[@]}" train "$recipe" "${overrides[@]}" "output=$directory" >"$directory/output.txt" 2>&1 &&
    measure_more "$directory" 2>>"$directory/output.txt" &&
    "$conclave" evaluate "$directory" --json --batches "${measured_batches:-0}" >"$directory/evaluation.json.part" \
      2>>"$directory/output.txt" || code=$?
  if [ "$code" -ne 0 ]; then
    echo "$directory ended with exit code $code: $(tail -n 1 "$directory/output.txt")" >&2
    return 255  # xargs starts no more runs
  fi
  mv "$directory/evaluation.json.part" "$directory/evaluation.json"
  run_ended
  echo "$(date +%H:%M:%S)  ${directory#runs/studies/}  $((SECONDS - start)) s"
}
measure_more() { :; }
run_ended() { :; }
made_by() {
  date
  "$conclave" --version
  git describe --always --dirty 2>/dev/null || true
  grep -m 1 'model name' /proc/cpuinfo || uname -m
}
export -f train_and_measure measure_more run_ended settings_of made_by

# run_all JOBS: the runs of standard input, JOBS of them side by side; those that are done are not repeated
run_all() {
  local jobs=$1 lines=() left=() line
  text_checksum=$( (cat data/quickstart/*.bin 2>/dev/null || true) | cksum)
  export text_checksum
  mapfile -t lines
  for line in "${lines[@]}"; do
    is_done "$line" || left+=("$line")
  done
  echo "${#lines[@]} runs, $((${#lines[@]} - ${#left[@]})) of them done before"
  [ ${#left[@]} -gt 0 ] || return 0
  printf '%s\n' "${left[@]}" | xargs -d '\n' -n 1 -P "$jobs" bash -c 'train_and_measure "$1"' train_and_measure
}

# study_of "$@": what a study does whose only options are --jobs N and --list, with the runs of standard input
study_of() {
  local jobs=2 list=''
  while [ $# -gt 0 ]; do
    case $1 in
      --jobs) jobs=${2:?--jobs needs a number}; shift 2 ;;
      --list) list=yes; shift ;;
      *) usage ;;
    esac
  done
  if [ -n "$list" ]; then cat; return; fi
  need_data </dev/null
  run_all "$jobs"
}

# need_data: the studies read the quickstart's eight domains
need_data() {
  if [ ! -x "$conclave" ]; then
    echo "$script: $conclave is missing; build it first: cmake --preset release && cmake --build --preset release" >&2
    exit 2
  fi
  [ -f data/quickstart/complete ] || bash launch/prepare_quickstart_data.sh
  if [ ! -f data/quickstart/complete ]; then
    echo "$script: the studies need all eight domains of data/quickstart." >&2
    exit 3
  fi
}
