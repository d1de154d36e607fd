#!/usr/bin/env bash
# Fuzzes every loader of foreign bytes: builds the harnesses with clang (the fuzz preset) and runs each for some
# seconds under AddressSanitizer and UndefinedBehaviorSanitizer, from the seeds in corpus/ and what findings/ keeps.
# Usage: bash tests/fuzz/run.sh [seconds per harness, default 20] [harness ...]
# New inputs that reach new code stay in build/fuzz/corpus and serve the next call. What fails is kept as a file in
# build/fuzz/failures/HARNESS; move it to tests/fuzz/findings/HARNESS once it is mended. Two harnesses run side by side,
# or as many as CONCLAVE_FUZZ_JOBS says. CONCLAVE_FUZZ_SEED other than 0: the same draws each time. Exit code 1: something
# failed; 77: there is no clang and none can be installed.
set -euo pipefail

cd "$(dirname "$0")/../.."
seconds=${1:-20}
shift || true
log=build/fuzz_build.log
mkdir -p build

# Debian splits off the runtime with libFuzzer, where clang's major version is newer than 14.
unavailable() {
  echo "tests/fuzz/run.sh: skipped, $* is not installed and cannot be installed here." >&2
  exit 77
}
bash launch/install_packages.sh
bash launch/install_packages.sh --optional clang
command -v clang++ >/dev/null || unavailable clang
links_fuzzers() {
  echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
    clang++ -x c++ -fsanitize=fuzzer,address - -o build/fuzzer_probe 2>/dev/null
}
if ! links_fuzzers; then
  major=$(clang++ -dumpversion | cut -d. -f1)
  bash launch/install_packages.sh --optional "libclang-rt-$major-dev"
  links_fuzzers || unavailable "libclang-rt-$major-dev"
fi
rm -f build/fuzzer_probe

if ! { cmake --preset fuzz && nice cmake --build --preset fuzz; } >"$log" 2>&1; then
  grep -A 15 -E 'FAILED:|[Ee]rror' "$log" | head -n 60 >&2 || true
  echo "tests/fuzz/run.sh: the build failed; all of its output is in $log." >&2
  exit 1
fi

harnesses=("$@")
if [ ${#harnesses[@]} -eq 0 ]; then
  for program in build/fuzz/tests/fuzz/fuzz_*; do
    # HDF5 1.10 itself loops for ever or leaks on raw bytes, and reads beyond its memory where a signed index maps
    # elements that a shard does not have; nothing here can mend that. Run these two by their names.
    if [[ $program == *_bytes || $program == *_checkpoint_index ]]; then continue; fi
    if [ -f "$program" ] && [ -x "$program" ]; then harnesses+=("${program##*/fuzz_}"); fi
  done
fi

# Inputs are written as files for the loaders: in memory where that is possible.
scratch=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export UBSAN_OPTIONS=print_stacktrace=1
# A C library that asks malloc for absurd sizes gets none and must say so; our own operator new fails loudly.
export ASAN_OPTIONS=allocator_may_return_null=1

build/fuzz/tests/fuzz/recipe_words | cat tests/fuzz/yaml.dict - >build/fuzz/recipe.dict

printf '%-18s %12s %8s %8s %9s\n' harness executions edges inputs seconds
run_harness() {
  local harness=$1 corpus=build/fuzz/corpus/$1 failures=build/fuzz/failures/$1 output=build/fuzz/$1.log folder
  mkdir -p "$corpus" "$failures" "$scratch/$harness"
  local inputs=("$corpus")
  for folder in tests/fuzz/corpus/$harness tests/fuzz/findings/$harness; do
    if [ -d "$folder" ]; then inputs+=("$folder"); fi
  done
  local dictionary=tests/fuzz/$harness.dict
  case $harness in recipe | overrides) dictionary=build/fuzz/recipe.dict ;; esac
  local options=(-max_total_time="$seconds" -seed="${CONCLAVE_FUZZ_SEED:-0}" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=512 -max_len=16384
                 -use_value_profile=1 -print_final_stats=1 -artifact_prefix="$failures/")
  if [ -f "$dictionary" ]; then options+=(-dict="$dictionary"); fi
  # HDF5 asks malloc for what a damaged file announces, takes a refusal well, and leaks a little on some errors.
  case $harness in
    expert_history_bytes) options+=(-malloc_limit_mb=1000000000 -detect_leaks=0) ;;
    checkpoint_index) options+=(-detect_leaks=0) ;;
    # A window of 2 GiB is what a good file of `zstd --long=31` asks for; it is touched only as far as it is filled.
    documents) options+=(-malloc_limit_mb=2560) ;;
  esac
  local begin=$SECONDS code=0
  TMPDIR=$scratch/$harness timeout -k 10 $((seconds + 120)) nice "build/fuzz/tests/fuzz/fuzz_$harness" \
    "${options[@]}" "${inputs[@]}" >"$output" 2>&1 || code=$?
  local executions edges kept
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$output")
  edges=$(grep -oE 'cov: [0-9]+' "$output" | tail -n 1 | cut -d' ' -f2 || true)
  kept=$(find "$corpus" -type f | wc -l)
  local line
  line=$(printf '%-18s %12s %8s %8s %9s' "$harness" "${executions:-?}" "${edges:-?}" "$kept" $((SECONDS - begin)))
  if [ "$code" -ne 0 ]; then
    touch "$scratch/$harness.failed"
    line+=$'\n'$(grep -m 3 -E 'ERROR:|SUMMARY:|runtime error:|what\(\):|Test unit written' "$output" | sed 's/^/  /' || true)
    line+=$'\n'"  all of its output is in $output"
  fi
  printf '%s\n' "$line"
}

begin=$SECONDS running=0
for harness in "${harnesses[@]}"; do
  if [ "$running" -ge "${CONCLAVE_FUZZ_JOBS:-2}" ]; then
    wait -n || true
    running=$((running - 1))
  fi
  run_harness "$harness" &
  running=$((running + 1))
done
wait

failed=()
for harness in "${harnesses[@]}"; do
  if [ -e "$scratch/$harness.failed" ]; then failed+=("$harness"); fi
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "tests/fuzz/run.sh: failed: ${failed[*]}"
  exit 1
fi
echo "tests/fuzz/run.sh: ${#harnesses[@]} harnesses, $seconds s each, no finding, in $((SECONDS - begin)) s."
