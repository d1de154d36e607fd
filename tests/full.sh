#!/usr/bin/env bash
# The long tests with full counts: what tests/run.sh does a few times, here as often as the design asks for. Takes hours
# at full scale; parts can be chosen and counts scaled. Ends with a table of what ran; exit code 1: something failed.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash tests/full.sh [--scale FACTOR] [--only PART,PART...] [--list]

  --scale FACTOR    counts times FACTOR, at least 1 each (1)
  --only PARTS      of kills samples resumes flips truncations power refusals layouts watchdog fuzz soak bundle fresh; all by default
  --list            says what each part does and how long it takes about, and ends

Examples:
  bash tests/full.sh
  bash tests/full.sh --scale 0.1 --only kills,flips
TEXT
}
refuse() {
  echo "tests/full.sh: $*; bash tests/full.sh --help tells more." >&2
  exit 2
}

cd "$(dirname "$0")/.."
all=(kills samples resumes flips truncations power refusals layouts watchdog fuzz soak bundle fresh)
scale=1 chosen=("${all[@]}") list=''
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --list) list=yes; shift ;;
    --scale) [ $# -ge 2 ] || refuse "--scale came without a value"; scale=$2; shift 2 ;;
    --only) [ $# -ge 2 ] || refuse "--only came without a value"; IFS=, read -ra chosen <<<"$2"; shift 2 ;;
    *) refuse "'$1' is not known" ;;
  esac
done
[[ $scale =~ ^[0-9]*\.?[0-9]+$ ]] || refuse "--scale '$scale' came, expected a number such as 0.1"
scaled() { awk -v count="$1" -v scale="$scale" 'BEGIN { n = int(count * scale + 0.5); print n < 1 ? 1 : n }'; }

kills=$(scaled 500) resumed=$(scaled 5000) flips=$(scaled 2000) lengths=$(scaled 20) cuts=$(scaled 300)
fuzz_seconds=$(scaled 600) soak_seconds=$(scaled 3600)
if [ "$soak_seconds" -lt 120 ]; then soak_seconds=120; fi
tests=build/release/tests logs=build/full
harnesses=12  # about; for the estimate alone

# Of each part: what it does, and about how many seconds it takes on two cores.
declare -A what=(
  [kills]="$kills kills with SIGKILL at random instants, and $(((kills + 7) / 8)) under run.sh"
  [samples]="the log of samples over 10 kills and 2 changes of the number of ranks"
  [resumes]="$resumed runs that resume 7 times with recipes changed at random"
  [flips]="$flips flips of one bit in a checkpoint, read by inspect, every 20th by train too"
  [truncations]="each file of a checkpoint cut to $lengths lengths and missing, read by inspect and train"
  [power]="a kill before every system call of a save, and $cuts random power cuts"
  [refusals]="ENOSPC, EIO, EROFS, EINTR and short writes at every system call of a save, a full file system"
  [layouts]="12 layouts saved, each loaded on each of the 12"
  [watchdog]="a stopped rank, a skipped collective, an endless loop, 1000 clean steps, every way to end"
  [fuzz]="every loader's harness for $fuzz_seconds s"
  [soak]="training for $soak_seconds s with random faults"
  [bundle]="the bundle for GPUs: packed, run on the emulated device and in an empty root, a wrong kernel seen"
  [fresh]="both commands of README.md on empty Debian 12 and 13, as root and as a user, and without a package"
)
declare -A estimate=(
  [kills]=$((kills * 5 / 2 + 20)) [samples]=30 [resumes]=$((resumed / 100 + 60)) [flips]=$((flips / 7 + 10)) [truncations]=$((lengths * 7 + 10))
  [power]=$((cuts / 12 + 5)) [refusals]=60 [layouts]=180 [watchdog]=120
  [fuzz]=$((harnesses * fuzz_seconds / 2 + 60)) [soak]=$((soak_seconds + 10))
  [bundle]=1500 [fresh]=12000
)
total=0
for part in "${chosen[@]}"; do
  [ -n "${what[$part]:-}" ] || refuse "there is no part '$part'"
  total=$((total + estimate[$part]))
  if [ -n "$list" ]; then printf '%-12s %6d s  %s\n' "$part" "${estimate[$part]}" "${what[$part]}"; fi
done
if [ -n "$list" ]; then exit 0; fi

mkdir -p "$logs"
bash launch/install_packages.sh
bash launch/install_packages.sh --optional python3-h5py debootstrap
echo "tests/full.sh: building the release preset"
if ! { cmake --preset release && cmake --build --preset release; } >"$logs/build.log" 2>&1; then
  grep -A 15 -E 'FAILED:|[Ee]rror' "$logs/build.log" | head -n 60 >&2 || true
  echo "tests/full.sh: the build failed; all of its output is in $logs/build.log." >&2
  exit 1
fi

on_ranks() { OMP_NUM_THREADS=1 mpirun --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n "$@"; }
run_part() {
  case $1 in
    kills) CONCLAVE_KILLS=$kills $tests/launch/kill_test --gtest_filter='*AtAnyInstant*:*UnderRunScript*' ;;
    samples) $tests/launch/kill_test --gtest_filter='*EverySample*' ;;
    resumes)
      CONCLAVE_RESUMED_RUNS=$resumed $tests/framework/data/data_position_test && $tests/launch/resumed_recipe_test
      ;;
    flips) CONCLAVE_FLIPS=$flips $tests/launch/checkpoint_command_test --gtest_filter='*FlippedByte*' ;;
    truncations)
      CONCLAVE_TRUNCATIONS=$lengths $tests/launch/checkpoint_command_test --gtest_filter='*CutShort*:*NeverStartsAnew*:*Leftovers*'
      ;;
    power) CONCLAVE_POWER_CUTS=$cuts $tests/framework/store/protocol_test --gtest_filter='*KilledBefore*:*PowerCut*:*Then*' ;;
    refusals)
      $tests/framework/store/protocol_test --gtest_filter='*Refused*:*Interrupted*:*NotPublished*' &&
        $tests/launch/checkpoint_command_test --gtest_filter='*SaveThatFails*:*FullFileSystem*' &&
        on_ranks 4 $tests/launch/checkpointing_test --gtest_filter='Checkpointing.*'
      ;;
    layouts) on_ranks 4 $tests/launch/checkpointing_test --gtest_filter='*Layout*' ;;
    watchdog) $tests/launch/reliability_test ;;
    fresh) fresh_machines ;;
    bundle) bash tests/gpu/bundle_test.sh --full ;;
    fuzz) bash tests/fuzz/run.sh "$fuzz_seconds" ;;
    soak)
      if [ "$soak_seconds" -ge 1200 ]; then
        bash tests/soak.sh "$soak_seconds"
      else
        # Short as it is, it has more faults than any machine: each costs its seconds.
        bash tests/soak.sh "$soak_seconds" --faults 20 40 --share 50
      fi
      ;;
  esac
}

fresh_machines() {
  bash tests/fresh_machine.sh bookworm --full && bash tests/fresh_machine.sh trixie --full &&
    bash tests/fresh_machine.sh bookworm --full --user &&
    bash tests/fresh_machine.sh bookworm --without ocl-icd-opencl-dev
}

echo "tests/full.sh: ${#chosen[@]} parts at scale $scale, about $(((total + 59) / 60)) minutes; output in $logs/"
begin=$SECONDS failed=() rows=()
for part in "${chosen[@]}"; do
  echo "[$((SECONDS - begin)) s] $part: ${what[$part]}; about ${estimate[$part]} s"
  part_begin=$SECONDS code=0
  # Lines that tell of progress or of a failure; everything is in the log.
  { run_part "$part" 2>&1 || echo "exit code $?"; } | tee "$logs/$part.log" |
    grep --line-buffered -E '^[0-9]+ of [0-9]+ |kills in|power cuts|SKIPPED|FAILED|: Failure|tests/(fuzz|soak|fresh_machine)|effective|^exit code' |
    sed -u 's/^/    /' || true
  if grep -q '^exit code' "$logs/$part.log"; then code=$(sed -n 's/^exit code //p' "$logs/$part.log" | tail -n 1); fi
  result=passed
  if [ "$code" -eq 77 ]; then
    result=skipped
  elif [ "$code" -ne 0 ]; then
    result=FAILED
    failed+=("$part")
  elif grep -q '^\[  SKIPPED \]' "$logs/$part.log"; then
    result="passed, in part"
  fi
  rows+=("$(printf '%-12s %-16s %6d s  %s' "$part" "$result" $((SECONDS - part_begin)) "${what[$part]}")")
done

echo
printf '%s\n' "${rows[@]}"
echo "tests/full.sh: $((${#chosen[@]} - ${#failed[@]})) of ${#chosen[@]} parts passed at scale $scale in $((SECONDS - begin)) s."
if [ ${#failed[@]} -gt 0 ]; then
  echo "Next: look at $logs/${failed[0]}.log."
  exit 1
fi
