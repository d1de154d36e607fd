#!/usr/bin/env bash
# Trains a recipe under PBS Pro or OpenPBS: the ranks save before the time limit, and the job is put back into its queue
# to go on from there.   qsub -v ARGUMENTS="RECIPE.yaml key.path=value" launch/pbs.sh, from where relative paths begin
# Options of qsub come before what is written here; see docs/clusters.md.
#
#PBS -N conclave
#PBS -l select=1:ncpus=2:mpiprocs=2:ompthreads=1
#PBS -l walltime=12:00:00
#PBS -r y
#PBS -j oe
#PBS -k oed
##PBS -q NAME
# select: machines : processors of each : ranks on each : threads of a rank. walltime: of one start. -r y: may be
# started again. -j, -k: one log, written while the job runs.
#
# Knobs that are not PBS's, from the environment (qsub -v) or changed here:
time_limit=${TIME_LIMIT:-11:55:00}  # training.time_limit: stop and save by then, a little before walltime
max_restarts=${MAX_RESTARTS:-100}   # give up after so many starts of this job
conclave=${CONCLAVE:-build/release/conclave}
bind=${BIND:-cores}                 # mpirun --bind-to: cores, or none
set -uo pipefail

trap '' PIPE  # a log that nobody reads any more is no reason to leave the ranks alone
say() { printf '%s pbs.sh: %s\n' "$(date +%FT%T)" "$*" 2>/dev/null; }
give_up() {
  local code=$1
  shift
  say "$*"
  exit "$code"
}

[ -n "${PBS_JOBID:-}" ] || give_up 2 "this is a job: qsub -v ARGUMENTS=RECIPE.yaml launch/pbs.sh"
cd "${PBS_O_WORKDIR:-.}" || exit 2
# Arguments of the command are words without spaces here: qsub hands on variables and no arguments.
read -r -a arguments <<<"${ARGUMENTS:-}"
[ ${#arguments[@]} -ge 1 ] || give_up 2 "no recipe came: qsub -v ARGUMENTS=RECIPE.yaml launch/pbs.sh"
[ -x "$conclave" ] || give_up 2 "there is no program $conclave; build it, or name it in CONCLAVE"

ranks=$(wc -l <"$PBS_NODEFILE")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # PBS sets it from ompthreads
output=$("$conclave" validate "${arguments[@]}" --ranks "$ranks" --print output) || exit
start=(mpirun --hostfile "$PBS_NODEFILE" -n "$ranks" --bind-to none)
if [ "$bind" = cores ]; then
  start=(mpirun --hostfile "$PBS_NODEFILE" -n "$ranks" --map-by "slot:PE=$OMP_NUM_THREADS" --bind-to core)
fi
if [ "$(id -u)" -eq 0 ]; then start+=(--allow-run-as-root); fi

newest_checkpoint() {
  local manifest newest=''
  for manifest in "$output"/checkpoints/step-*/manifest.json; do
    if [ -e "$manifest" ] && [[ $(basename "$(dirname "$manifest")") =~ ^step-[0-9]+$ ]]; then
      newest=$(basename "$(dirname "$manifest")")
    fi
  done
  printf '%s' "$newest"
}

# `qsig -s USR1 JOB` asks for a save and a new start; qdel sends TERM to this shell: save, and no new start. The ranks
# get USR1 in both cases, as mpirun would end them a second after a TERM.
job='' cancelled=''
ask_to_stop() {
  if [ "$1" = TERM ]; then cancelled=yes; fi
  if [ -n "$job" ]; then kill -USR1 "$job" 2>/dev/null; fi
  say "SIG$1 came: the ranks finish their step and save"
}
trap 'ask_to_stop USR1' USR1
trap 'ask_to_stop HUP' HUP
trap 'ask_to_stop TERM' TERM

reached=$(newest_checkpoint)
say "job $PBS_JOBID: $ranks ranks of $OMP_NUM_THREADS threads, from ${reached:-the beginning}"
# A session of its own: what PBS sends to the job's processes reaches mpirun through this shell alone.
setsid "${start[@]}" "$conclave" train "${arguments[@]}" training.time_limit="$time_limit" </dev/null &
job=$!
while :; do
  wait "$job"
  code=$?
  kill -0 "$job" 2>/dev/null || break  # else a signal has only interrupted the waiting
done
wait "$job" 2>/dev/null
last=$?
if [ "$last" -ne 127 ]; then code=$last; fi

case $code in
  0) give_up 0 "done" ;;
  2) give_up 2 "exit code 2, not requeued: the request is wrong, for the reason above" ;;
  3) give_up 3 "exit code 3, not requeued: data or a checkpoint is missing or damaged, for the reason above" ;;
  4) give_up 4 "exit code 4, not requeued: training failed numerically, for the reason above" ;;
  75) reason="stopped on request and saved" ;;
  *) reason="failed with exit code $code" ;;
esac
if [ -n "$cancelled" ]; then give_up "$code" "$reason; deleted, so not requeued"; fi
# Starts of this job and the newest checkpoint at its last failure; PBS itself tells no number of starts.
memory=$output/pbs-starts
starts=0 failed_at=none
if [ -e "$memory" ]; then
  read -r of_job starts_before failed_before <"$memory"
  if [ "$of_job" = "$PBS_JOBID" ]; then starts=$starts_before failed_at=$failed_before; fi
fi
now=$(newest_checkpoint)
if [ "$code" -ne 75 ]; then
  if [ "$failed_at" = "${now:-nothing}" ]; then
    newest="there is no checkpoint yet"
    if [ -n "$now" ]; then newest="$now is the newest"; fi
    give_up "$code" "$reason, not requeued: no progress since the failure before, $newest"
  fi
  failed_at=${now:-nothing}
fi
if [ "$starts" -ge "$max_restarts" ]; then
  give_up "$code" "$reason, not requeued: this was restart $starts of at most $max_restarts"
fi
mkdir -p "$output" && printf '%s %s %s\n' "$PBS_JOBID" $((starts + 1)) "$failed_at" >"$memory"
say "$reason; requeued, to go on from ${now:-the beginning}"
qrerun "$PBS_JOBID" ||
  give_up "$code" "PBS does not requeue this job; the same qsub goes on from ${now:-the beginning}"
wait
exit "$code"
