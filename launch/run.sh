#!/usr/bin/env bash
# Trains a recipe on N ranks of mpirun and sees it through: forwards requests to stop, starts again after failures from
# the newest good checkpoint, and gives up when a failure comes back without progress. See docs/reliability.md.
set -uo pipefail

# A descriptor that is closed at the start is opened, so that no pipe below gets its number.
for ((descriptor = 0; descriptor < 3; descriptor++)); do
  [ -e "/proc/$$/fd/$descriptor" ] || eval "exec $descriptor<>/dev/null"
done

usage() {
  cat <<'TEXT'
usage: bash launch/run.sh -n N [--restarts K] [--hostfile FILE] RECIPE.yaml [key.path=value ...]

Starts `mpirun -n N conclave train RECIPE.yaml ...` and waits for its end.

  -n N             MPI ranks
  --restarts K     start again after at most K failures (3); 0: never
  --hostfile FILE  machines, as mpirun reads them
  --help           this text

SIGTERM, SIGINT, SIGHUP and SIGUSR1 reach the ranks as SIGUSR1: they finish the step, save, and the exit code is 75; a
second one ends them at once. A signal that is ignored at the start, as under nohup, stays ignored. A pipe behind
run.sh that is closed, as that of `| head`, ends nothing: training does not depend on its output.

After a failure (a rank died, the machine failed, a watchdog spoke) the run goes on from its newest checkpoint. When two
failures come without a new checkpoint between them, or after K restarts, run.sh gives up.

Exit codes are those of `conclave train`: 0 done, 2 request, 3 data or checkpoint, 4 numbers, 5 machine, 75 stopped. A
second signal gives 128 and its number, 138 for the SIGUSR1 that the ranks got.

CONCLAVE names another program than build/release/conclave.

Examples:
  bash launch/run.sh -n 2 examples/quickstart.yaml
  bash launch/run.sh -n 8 --restarts 10 examples/quickstart.yaml training.time_limit=11:50:00 output=runs/long
TEXT
}

# Whoever reads the output may end first, as tee does after a Ctrl-C: that must neither end this script, which the ranks
# would outlive unsupervised, nor keep it from its work.
trap '' PIPE
say() { printf 'run.sh: %s\n' "$*" 2>/dev/null; }
refuse() {
  printf 'run.sh: %s; bash launch/run.sh --help tells more.\n' "$*" >&2
  exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
conclave=${CONCLAVE:-$root/build/release/conclave}
ranks='' restarts=3 mpirun_options=(--bind-to none)
words=()  # the recipe and its overrides; options may stand before or behind them
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h)
      usage
      exit 0
      ;;
    -n | --restarts | --hostfile)
      [ $# -ge 2 ] || refuse "$1 came without a value"
      option=$1 value=$2
      shift
      ;;
    -n?*) option=-n value=${1#-n} value=${value#=} ;;
    --restarts=* | --hostfile=*) option=${1%%=*} value=${1#*=} ;;
    --)
      words+=("${@:2}")
      break
      ;;
    -*) refuse "the option '$1' is not known" ;;
    *) option='' words+=("$1") ;;
  esac
  case $option in
    -n) ranks=$value ;;
    --restarts) restarts=$value ;;
    --hostfile) mpirun_options+=(--hostfile "$value") ;;
  esac
  shift
done
set -- ${words[@]+"${words[@]}"}
[[ $ranks =~ ^[1-9][0-9]*$ ]] || refuse "-n '$ranks' came, expected the number of ranks"
[[ $restarts =~ ^[0-9]+$ ]] || refuse "--restarts '$restarts' came, expected 0 or more"
[ $# -ge 1 ] || refuse "no recipe came"
[ -x "$conclave" ] || refuse "there is no program $conclave; build it with cmake --build --preset release"
command -v mpirun >/dev/null || { say "there is no mpirun; bash launch/install_packages.sh installs it." >&2; exit 5; }

# The resolved recipe says where the run lives; what is wrong with the recipe is told here once and not by every rank.
output=$("$conclave" validate "$@" --ranks "$ranks" --print output) || exit
[ -n "$output" ] || refuse "the recipe names no output"

if [ "$(id -u)" -eq 0 ]; then mpirun_options+=(--allow-run-as-root); fi
case " ${mpirun_options[*]} " in
  *" --hostfile "*) ;;
  *)
    mpirun_options+=(--oversubscribe)
    if [ "$(nproc)" -lt "$ranks" ]; then mpirun_options+=(--mca mpi_yield_when_idle 1); fi
    ;;
esac

# The newest complete checkpoint's name, or nothing: its manifest is written last.
newest_checkpoint() {
  local manifest newest=''
  for manifest in "$output"/checkpoints/step-*/manifest.json; do
    if [ -e "$manifest" ] && [[ $(basename "$(dirname "$manifest")") =~ ^step-[0-9]+$ ]]; then
      newest=$(basename "$(dirname "$manifest")")
    fi
  done
  printf '%s' "$newest"
}

# mpirun would end itself and all ranks when nobody reads its output any more. So it writes, as this script does, to two
# readers that go on reading then. Each has a session of its own, as a Ctrl-C must not end them before mpirun.
exec > >(exec setsid tee -p /dev/null)
readers=$!
exec 2> >(exec setsid tee -p /dev/null >&2)
readers+=" $!"
# They have shown everything when they end; a terminal that is stopped is waited for only so long.
show_the_rest() {
  exec >&- 2>&-
  for ((tries = 0; tries < 100; tries++)); do
    # shellcheck disable=SC2086
    kill -0 $readers 2>/dev/null || return
    sleep 0.05
  done
}
trap show_the_rest EXIT

job='' stopping=''
forward() {
  stopping=yes
  [ -n "$job" ] || return 0
  kill -USR1 "$job" 2>/dev/null  # first: saying it may fail, or wait for a terminal that is stopped
  say "SIG$1 came; asking the ranks to save and stop"
}
# A signal that was ignored when this script began cannot be trapped, and stays ignored.
for signal in TERM INT HUP USR1; do
  # shellcheck disable=SC2064
  trap "forward $signal" "$signal"
done

# Runs the job once and leaves its exit code in `code`. A session of its own keeps a Ctrl-C from reaching mpirun, which
# would kill the ranks.
run_once() {
  setsid mpirun "${mpirun_options[@]}" -n "$ranks" "$conclave" train "$@" </dev/null &
  job=$!
  if [ -n "$stopping" ]; then kill -USR1 "$job" 2>/dev/null; fi
  while :; do
    wait "$job"
    code=$?
    kill -0 "$job" 2>/dev/null || break  # else a signal has only interrupted the waiting
  done
  wait "$job" 2>/dev/null
  local last=$?
  if [ "$last" -ne 127 ]; then code=$last; fi
  job=''
}

failed_at=none
for ((attempt = 0; ; attempt++)); do
  say "starting $ranks $([ "$ranks" -eq 1 ] && echo rank || echo ranks) with $1, writing to $output"
  run_once "$@"
  case $code in
    0) say "done"; exit 0 ;;
    2) say "ended with exit code 2: the request is wrong, for the reason above" >&2; exit 2 ;;
    3) say "ended with exit code 3: data or a checkpoint is missing or damaged, for the reason above" >&2; exit 3 ;;
    4) say "ended with exit code 4: training failed numerically, for the reason above" >&2; exit 4 ;;
    75) say "stopped on request and saved; the same command goes on"; exit 75 ;;
  esac
  if [ "$code" -gt 128 ]; then
    say "a rank died of signal $((code - 128)) ($(kill -l $((code - 128)) 2>/dev/null || echo unknown))" >&2
    result=5
    dead=$("$conclave" ranks "$output" --dead 2>/dev/null)  # only where no survivor has said it
    if [ -n "$dead" ]; then say "$dead" >&2; fi
  else
    say "ended with exit code $code" >&2
    result=$code
  fi
  if [ -n "$stopping" ]; then say "it had been asked to stop, so it is not started again" >&2; exit "$code"; fi
  reached=$(newest_checkpoint)
  if [ "$attempt" -ge "$restarts" ]; then
    say "giving up after $attempt $([ "$attempt" -eq 1 ] && echo restart || echo restarts) (--restarts $restarts)" >&2
    exit "$result"
  fi
  if [ "$failed_at" = "$reached" ]; then
    newest="there is no checkpoint yet"
    if [ -n "$reached" ]; then newest="$reached is still the newest"; fi
    say "giving up: no progress since the failure before, $newest" >&2
    exit "$result"
  fi
  failed_at=$reached
  say "starting again from ${reached:-the beginning}, restart $((attempt + 1)) of at most $restarts"
  sleep 1
  if [ -n "$stopping" ]; then say "it has been asked to stop, so it is not started again" >&2; exit "$result"; fi
done
