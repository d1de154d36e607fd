#!/usr/bin/env bash
# launch/slurm.sbatch under a real Slurm of one node (slurm_sandbox.sh): jobs that reach their time limit, are asked to
# stop, lose a rank or are cancelled, and go on to the same metrics, bit for bit, as a job that nobody disturbed.
# Needs root and Debian's slurm-wlm, munge and iproute2, and takes some minutes; not one of the default tests.
#   bash tests/cluster/slurm.sh [--quick]      --quick leaves out the wait for a time limit
# The transcript that docs/clusters.md shows is this script's output. CONCLAVE names another program.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export CONCLAVE=${CONCLAVE:-$root/build/release/conclave}
if [ "${1:-}" != --inside ]; then
  [ -x "$CONCLAVE" ] || { echo "slurm.sh: there is no program $CONCLAVE; build it first" >&2; exit 5; }
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  bash "$root/tests/cluster/slurm_sandbox.sh" bash "${BASH_SOURCE[0]}" --inside "$work" "$@"
  exit
fi
work=$2 quick=${3:-}
cd "$work" || exit
unset OMP_NUM_THREADS
begin=$SECONDS mistakes=0
say() { printf '[%3d s] %s\n' $((SECONDS - begin)) "$*"; }
expect() {  # expect "what" COMMAND...: a line that says whether it holds
  local what=$1
  shift
  if "$@"; then say "holds: $what"; else say "WRONG: $what"; mistakes=$((mistakes + 1)); fi
}

# Every document of this checkout is text enough.
"$CONCLAVE" tokenize --output text --domain text --extension .md --held-out 0.2 --held-out-output text-validation \
  "$root/docs" >/dev/null || exit
cat >recipe.yaml <<'RECIPE'
name: cluster
model: {vocab_size: 264, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
        head_dim: 32, moe: {num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 64,
                            balance: [{scope: global_batch, estimator: warm, coefficient: 0.01}]}}
data: {sequence_length: 64, domain_block: 2, train: [{path: text, domain: text}],
       validation: [{path: text-validation, domain: text}]}
parallel: {expert: 2}
training: {global_batch_size: 16, micro_batch_size: 4, steps: 40}
optimizer: {lr: 0.003, schedule: {kind: constant, warmup_steps: 10}}
checkpoint: {interval: 100000, keep: 2}
evaluation: {interval: 200, batches: 2}
RECIPE

# submit OUTPUT "options of sbatch" key=value...: prints the job's number.
submit() {
  local output=$1 options=$2
  shift 2
  # shellcheck disable=SC2086
  sbatch --parsable --job-name="$output" $options "$root/launch/slurm.sbatch" recipe.yaml "output=$output" "$@"
}
state() { scontrol show job "$1" 2>/dev/null | sed -n 's/^ *JobState=\([A-Z_]*\).*/\1/p'; }
exit_code() { scontrol show job "$1" 2>/dev/null | sed -n 's/.* ExitCode=\([0-9]*\):.*/\1/p'; }
starts() { grep -c 'slurm.sbatch: start ' "$1" 2>/dev/null; }
# Slurm lets a requeued job wait for about two minutes, until its old credentials are surely gone: some seconds are enough.
wait_until() {  # wait_until SECONDS COMMAND...
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    if [ $SECONDS -ge "$deadline" ]; then
      say "WRONG: waited in vain for: $*"
      squeue
      tail -n 20 ./*.log
      exit 1
    fi
    for waiting in $(squeue --noheader --states=PENDING --format='%i %r' | sed -n 's/ BeginTime$//p'); do
      sleep 4
      scontrol update "jobid=$waiting" StartTime=now 2>/dev/null
    done
    sleep 0.5
  done
}
# On its way back into the queue a job looks ended for a moment: then the script's last word is that it is requeued.
has_ended() {
  [[ $(state "$1") =~ ^(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL)$ ]] &&
    ! grep 'slurm.sbatch:' ./*-"$1".log | tail -n 1 | grep -q '; requeued'
}
finish() { wait_until "$1" has_ended "$2"; }
steps_of() { [ "$(grep -c lm_loss "$1/metrics.jsonl" 2>/dev/null)" -ge "$2" ]; } 2>/dev/null
has_started() { [ "$(starts "$1")" -ge "$2" ]; } 2>/dev/null
show_log() { grep -E 'slurm.sbatch:|srun: error|Stopped|Resum|Done|conclave:' "$1" | sed -e "s|$work|WORK|g" -e "s|$root|ROOT|g" -e 's/^/          | /'; }
# metrics.jsonl without what depends on time.
numbers() {
  sed -E 's/"(step_seconds|tokens_per_second|model_flops_per_second|wait_seconds_[a-z_]*)": ?[^,}]*,? ?//g' \
    "$1/metrics.jsonl"
}
same() { [ -s "$1/metrics.jsonl" ] && cmp <(numbers "$1") <(numbers "$2"); }
is() { [ "$1" = "$2" ]; }

say "$(sinfo --version), $(srun --mpi=list 2>&1 | grep -o 'pmix_v[0-9]*'), one node of $(nproc) processors, 2 ranks"
# How many steps are long enough for what follows?
job=$(submit measure "")
finish 120 "$job"
step=$(sed -n 's/.*"step_seconds": *\([0-9.e-]*\).*/\1/p' measure/metrics.jsonl | sort -g | sed -n 20p)
[ -n "$step" ] || { show_log "measure-$job.log"; cat "measure-$job.log"; say "the first job did not train"; exit 1; }
short=$(awk -v s="$step" 'BEGIN { n = int(8 / s / 100 + 1) * 100; print n }')
long=$(awk -v s="$step" 'BEGIN { n = int(80 / s / 100 + 1) * 100; print n }')

job=$(submit undisturbed "" training.steps="$short")
say "sbatch launch/slurm.sbatch recipe.yaml output=undisturbed training.steps=$short   -> job $job"
finish 300 "$job"
show_log "undisturbed-$job.log"
expect "job $job is done in one start" is "$(state "$job") $(starts "undisturbed-$job.log")" "COMPLETED 1"

job=$(submit disturbed "" training.steps="$short" checkpoint.interval=$((short / 10)))
say "sbatch launch/slurm.sbatch recipe.yaml output=disturbed training.steps=$short   -> job $job"
wait_until 60 steps_of disturbed $((short / 5))
say "scancel --signal=USR1 $job   (to the ranks)"
scancel --signal=USR1 "$job"
wait_until 120 has_started "disturbed-$job.log" 2
wait_until 60 steps_of disturbed $((short * 2 / 5))
say "scancel --batch --signal=USR1 $job   (to the script, as --signal=B:USR1@180 does)"
scancel --batch --signal=USR1 "$job"
wait_until 120 has_started "disturbed-$job.log" 3
wait_until 60 steps_of disturbed $((short * 3 / 5))
rank=$(pgrep -f "conclave train recipe.yaml output=disturbed" | while read -r process; do
  tr '\0' '\n' <"/proc/$process/environ" 2>/dev/null | grep -qx 'PMIX_RANK=1' && echo "$process" && break
done)
say "kill -KILL of rank 1"
kill -KILL "$rank"
finish 300 "$job"
show_log "disturbed-$job.log"
expect "job $job is done in four starts" is "$(state "$job") $(starts "disturbed-$job.log")" "COMPLETED 4"
expect "its metrics are those of the undisturbed job" same undisturbed disturbed

job=$(LAUNCHER=mpirun BIND=none submit by-mpirun "" training.steps="$short")
say "LAUNCHER=mpirun BIND=none sbatch launch/slurm.sbatch recipe.yaml output=by-mpirun training.steps=$short   -> job $job"
wait_until 60 steps_of by-mpirun $((short / 3))
say "scancel --batch --signal=USR1 $job"
scancel --batch --signal=USR1 "$job"
finish 300 "$job"
show_log "by-mpirun-$job.log"
expect "job $job is done in two starts" is "$(state "$job") $(starts "by-mpirun-$job.log")" "COMPLETED 2"
expect "its metrics are those of the undisturbed job" same undisturbed by-mpirun

job=$(submit cancelled "" training.steps="$short")
say "sbatch launch/slurm.sbatch recipe.yaml output=cancelled training.steps=$short   -> job $job"
wait_until 60 steps_of cancelled $((short / 3))
say "scancel $job"
scancel "$job"
finish 60 "$job"
sleep 1
show_log "cancelled-$job.log"
expect "job $job is cancelled after one start" is "$(state "$job") $(starts "cancelled-$job.log")" "CANCELLED 1"
expect "it has saved" test -n "$(find cancelled/checkpoints -name manifest.json)"
job=$(submit cancelled "" training.steps="$short")
say "the same sbatch again   -> job $job"
finish 300 "$job"
show_log "cancelled-$job.log"
expect "its metrics are those of the undisturbed job" same undisturbed cancelled

job=$(submit wrong "" model.moe.num_expert=8)
say "sbatch launch/slurm.sbatch recipe.yaml output=wrong model.moe.num_expert=8   -> job $job"
finish 60 "$job"
show_log "wrong-$job.log"
expect "job $job failed with exit code 2 after no start" is "$(state "$job") $(exit_code "$job") $(starts "wrong-$job.log")" "FAILED 2 0"

# On a machine that others use, too, nobody knows how many steps a minute has: more, where it was enough for all.
if [ "$quick" != --quick ]; then
  for attempt in 1 2 3; do
    job=$(submit "limited$attempt" "--time=1 --signal=B:USR1@40" training.steps="$long")
    say "sbatch --time=1 --signal=B:USR1@40 launch/slurm.sbatch recipe.yaml output=limited$attempt training.steps=$long   -> job $job"
    finish 900 "$job"
    show_log "limited$attempt-$job.log"
    count=$(starts "limited$attempt-$job.log")
    if [ "$count" -gt 1 ]; then break; fi
    long=$((long * 4))
  done
  expect "job $job is done, in $count starts" is "$(state "$job") $((count > 1))" "COMPLETED 1"
  job=$(submit long "" training.steps="$long")
  say "sbatch launch/slurm.sbatch recipe.yaml output=long training.steps=$long   -> job $job"
  finish 600 "$job"
  show_log "long-$job.log"
  expect "job $job is done in one start" is "$(state "$job") $(starts "long-$job.log")" "COMPLETED 1"
  expect "the metrics of both are the same" same long "limited$attempt"
fi
say "$mistakes mistakes"
[ "$mistakes" -eq 0 ]
