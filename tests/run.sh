#!/usr/bin/env bash
# Installs what is missing, builds everything with the release preset and runs every test that this machine can run.
#   bash tests/run.sh              everything, some of it once more under sanitizers, and the loaders fuzzed
#   bash tests/run.sh --quick      the tests that are not slow, in three minutes once everything is built
#   bash tests/run.sh -R store     arguments go to ctest; -L layers runs a folder's tests
#   bash tests/run.sh --only NAME  builds the test program NAME alone and runs it
# The last lines say what passed, failed and was skipped; the exit code is 0 only when nothing failed.
set -euo pipefail

cd "$(dirname "$0")/.."
begin=$SECONDS
log=build/tests_run.log
mkdir -p build

# lap NAME: what was done since the lap before is called NAME in the table of minutes.
laps='' lap_begin=$SECONDS
lap() {
  laps+="${laps:+, }$1 $(awk -v seconds=$((SECONDS - lap_begin)) 'BEGIN { printf "%.1f", seconds / 60 }')"
  lap_begin=$SECONDS
}

# A single test program takes no packages but those of the build.
only=''
if [ "${1:-}" = --only ]; then
  [ $# -eq 2 ] || { echo "tests/run.sh: --only takes one name, such as autograd_test." >&2; exit 2; }
  only=$2
  set -- -R "^$2(_[0-9]+_ranks)?\$"
fi

if [ "${1:-}" = --quick ]; then
  shift
  set -- -LE slow "$@"
fi

# Only tests need these: h5py reads checkpoints as users do, groff the manual page, zsh its completion; scipy does the
# studies' statistics, chromium shows the report; clang-format, codespell and doxygen hold the texts to their form. A test
# whose package cannot be had is skipped.
bash launch/install_packages.sh
if [ -z "$only" ]; then
  bash launch/install_packages.sh --optional python3 python3-h5py groff-base zsh python3-scipy chromium clang-format codespell doxygen
fi

lap packages
echo "tests/run.sh: building ${only:-everything} with the release preset"
target=(--target "${only:-all}")
if ! cmake --preset release >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "tests/run.sh: the configuration failed, for the reason above." >&2
  exit 1
fi
if [ -t 1 ]; then
  cmake --build --preset release "${target[@]}" || { echo "tests/run.sh: the build failed, for the reason above." >&2; exit 1; }
elif ! cmake --build --preset release "${target[@]}" >"$log" 2>&1; then
  grep -A 15 -E 'FAILED:|error' "$log" | head -n 60 >&2 || true
  echo "tests/run.sh: the build failed; all of its output is in $log." >&2
  exit 1
fi
lap build
echo "tests/run.sh: built after $((SECONDS - begin)) s; running the tests"

# Tests with several MPI ranks say so to ctest (PROCESSORS), which then runs fewer beside them.
jobs=$(nproc)
if [ "$jobs" -gt 8 ]; then jobs=8; fi
code=0
ctest --preset release --no-tests=error -j "$jobs" "$@" 2>&1 | tee "$log" || code=$?

lap tests

# ctest numbers each result line: "12/34 Test #5: name ....   Passed    0.10 sec".
results=$(grep -E '^ *[0-9]+/[0-9]+ +Test +#' "$log" || true)
passed=$(grep -c ' Passed ' <<<"$results" || true)
skipped=$(grep -E '\*\*\*(Skipped|Not Run)|Not Run \(Disabled\)' <<<"$results" | sed 's/.*Test *#[0-9]*: *\([^ ]*\).*/\1/' || true)
skipped_count=$(grep -c . <<<"$skipped" || true)
total=$(grep -c . <<<"$results" || true)
failed=$((total - passed - skipped_count))

# GoogleTest programs skip single cases inside a test that passes; they list them at the end of their output.
cases=$(grep -h -E '^\[  SKIPPED \] [^ ]+\.[^ ,]+$' build/release/Testing/Temporary/LastTest.log 2>/dev/null | sort -u || true)

# run_labelled PRESET TARGET LABEL: builds the target with another preset and runs its tests; the last line says how it went.
run_labelled() {
  local log=build/tests_$3.log
  if cmake --preset "$1" >"$log" 2>&1 && cmake --build --preset "$1" --target "$2" >>"$log" 2>&1 &&
     ctest --preset "$1" --no-tests=error -L "$3" -j "$jobs" >>"$log" 2>&1; then
    echo "clean, $(grep -c ' Passed ' "$log") tests"
  else
    tail -n 60 "$log" >&2
    echo "FAILED, see $log"
    return 1
  fi
}

# Without arguments: the tests that read foreign bytes or write through raw pointers once more, under sanitizers.
sanitizers="not run: arguments were given"
races=$sanitizers
if [ $# -eq 0 ]; then
  echo "tests/run.sh: building some of the tests with AddressSanitizer and UndefinedBehaviorSanitizer"
  sanitizers=$(run_labelled debug sanitized_tests sanitized) || code=1
  lap sanitizers
  echo "tests/run.sh: building the device code with ThreadSanitizer"
  races=$(run_labelled thread race_tests races) || code=1
  lap races
fi

# Likewise, where there is nvcc, the device cuda for every GPU of its preset, warnings being errors. Its kernels are
# compiled once, and the table of registers and spills comes from that. The tests that take any device run on a GPU
# where there is one.
device_tests=$(ctest --preset release -N -L devices 2>/dev/null | sed -n 's/^Total Tests: //p' || true)
nvcc=$(PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin:/usr/local/cuda/bin" command -v nvcc || true)
cuda="not run: arguments were given"
on_gpu=$cuda
if [ $# -eq 0 ] && [ -z "$nvcc" ]; then
  cuda="skipped, there is no nvcc in PATH, CUDA_HOME or /usr/local/cuda"
  on_gpu="$device_tests tests skipped, nothing is built for one"
elif [ $# -eq 0 ] && ! cmake --preset cuda >build/tests_cuda.log 2>&1 && grep -q 'The device cuda needs' build/tests_cuda.log; then
  cuda="skipped, $(tr -s ' \n' '  ' <build/tests_cuda.log | grep -o 'The device cuda needs [^.]*' | head -n 1)"
  on_gpu="$device_tests tests skipped, nothing is built for one"
elif [ $# -eq 0 ]; then
  echo "tests/run.sh: building the device cuda with $nvcc"
  cuda_begin=$SECONDS
  cuda=$(run_labelled cuda device_tests resources) || code=1
  column -t -s "$(printf '\t')" build/cuda/device_resources.txt 2>/dev/null || true
  cuda="$cuda, $(awk 'END { print (NR > 0 ? NR - 1 : 0) }' build/cuda/device_resources.txt 2>/dev/null || echo 0) kernels, $((SECONDS - cuda_begin)) s"
  if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    on_gpu=$(run_labelled cuda device_tests devices) || code=1
  else
    on_gpu="$device_tests tests skipped, this machine has no GPU"
  fi
  lap cuda
fi

# Likewise every loader of foreign bytes with inputs of libFuzzer, for a short time.
fuzzing="not run: arguments were given"
if [ $# -eq 0 ]; then
  fuzz_seconds=${CONCLAVE_FUZZ_SECONDS:-20} fuzz_log=build/tests_fuzz.log fuzz_code=0
  echo "tests/run.sh: fuzzing the loaders, $fuzz_seconds s each"
  CONCLAVE_FUZZ_SEED=${CONCLAVE_FUZZ_SEED:-1} bash tests/fuzz/run.sh "$fuzz_seconds" 2>&1 | tee "$fuzz_log" || fuzz_code=$?
  fuzzing=$(tail -n 1 "$fuzz_log" | sed 's/^tests.fuzz.run.sh: //')
  if [ "$fuzz_code" -ne 0 ] && [ "$fuzz_code" -ne 77 ]; then
    fuzzing="FAILED, $fuzzing"
    code=1
  fi
  lap fuzzing
fi

echo
echo "minutes: $laps"
echo "under sanitizers: $sanitizers"
echo "device code under ThreadSanitizer: $races"
echo "device cuda: $cuda"
echo "on a GPU: $on_gpu"
echo "fuzzing: $fuzzing"
if [ -n "$skipped" ]; then echo "skipped on this machine: $(tr '\n' ' ' <<<"$skipped")"; fi
if [ -n "$cases" ]; then printf 'cases skipped inside tests:\n%s\n' "$cases"; fi
echo "tests/run.sh: $passed passed, $failed failed, $skipped_count skipped in $((SECONDS - begin)) s."
if [ "$code" -ne 0 ] || [ "$failed" -ne 0 ]; then
  echo "Next: ctest --preset release --rerun-failed shows the failures again; $log has all of the output."
  exit 1
fi
echo "Next: bash launch/quickstart.sh trains a small model on real text."
