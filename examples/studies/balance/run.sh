#!/usr/bin/env bash
# The balance studies: what the scope of the load-balancing loss does to experts and to the loss.
#
#     bash examples/studies/balance/run.sh [--jobs N] [--list] [--quick] [sweep] [main] [layout] [controls]
#
#   sweep     coefficients 0.003, 0.01, 0.03, 0.1 x {micro_batch, global_batch exact} x 2 seeds. It chooses, for each
#             arm, the coefficient with the lowest validation loss, and by the load in training that of equal load
#   main      both arms at their coefficient, 8 other seeds in pairs; on 3 of them also micro_batch at the coefficient of
#             global_batch, and global_batch at the coefficient at which its load is as uneven as that of micro_batch
#   layout    5 pairs of main, both arms at their coefficient, once more on 2 ranks that share the experts
#   controls  at half the length, 3 seeds each, all with the coefficient of global_batch: both arms, shuffled tokens,
#             mixed micro-batches, the other estimators, groups of 8 and 16 sequences, a selection bias in place of the
#             loss, both scopes at once, switches of scope at a quarter and at three quarters of the run
# Without names: all four, in this order; all need the sweep. N runs (2) go side by side. What is done is not repeated:
# stop it and start it again as you like. --list prints the runs and starts none. --quick instead trains 3 pairs of 0.5 MB
# each, in three minutes of one core's time, and ends with 1 unless experts specialise more with global counts in every
# pair. Results are in runs/studies/balance and runs/studies/controls; `bash examples/studies/evidence.sh` makes tables
# and plots of them.
set -euo pipefail
# shellcheck source=examples/studies/runs.sh
source "$(dirname "$0")/../runs.sh"

jobs=2 list='' quick='' parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --jobs) jobs=${2:?--jobs needs a number}; shift 2 ;;
    --list) list=yes; shift ;;
    --quick) quick=yes; shift ;;
    sweep | main | layout | controls) parts+=("$1"); shift ;;
    *) usage ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(sweep main layout controls)

recipe=examples/studies/balance/study.yaml
results=runs/studies/balance
coefficients=(0.01 0.03 0.003 0.1)
sweep_seeds=(1 2)
main_seeds=(11 12 13 14 15 16 17 18)
layout_seeds=(11 12 13 14 15)
control_seeds=(11 12 13)  # also of what is compared beside the main comparison

# A balance term: its scope as in the recipe, and its coefficient.
micro() { echo "{scope: micro_batch, coefficient: $1${2:+, $2}}"; }
exact() { echo "{scope: global_batch, estimator: exact, coefficient: $1${2:+, $2}}"; }

# arm NAME SEED BALANCE [key=value ...]
arm() {
  local name=$1 seed=$2 balance=$3
  shift 3
  run_line "$results/$name/$seed" "${ranks:-1}" $recipe "training.seed=$seed" "model.moe.balance=[$balance]" "$@"
}

sweep() {
  local coefficient seed
  for coefficient in "${coefficients[@]}"; do
    for seed in "${sweep_seeds[@]}"; do
      arm "micro-$coefficient" "$seed" "$(micro "$coefficient")"
      arm "exact-$coefficient" "$seed" "$(exact "$coefficient")"
    done
  done
}

# Sets best_micro, best_exact and matched_exact from the sweep; false when it is not complete.
choose() {
  local chosen
  chosen=$(python3 examples/studies/balance/choose.py runs/studies/balance "${#sweep_seeds[@]}" "${coefficients[@]}") || return
  eval "$chosen"
}

main() {
  local seed
  choose || return
  for seed in "${main_seeds[@]}"; do
    arm micro "$seed" "$(micro "$best_micro")"
    arm exact "$seed" "$(exact "$best_exact")"
  done
  if [ "$best_micro" != "$best_exact" ]; then
    for seed in "${control_seeds[@]}"; do arm micro-equal "$seed" "$(micro "$best_exact")"; done
  fi
  if [ "$matched_exact" != "$best_exact" ]; then
    for seed in "${control_seeds[@]}"; do arm exact-matched "$seed" "$(exact "$matched_exact")"; done
  fi
}

# Two ranks keep two cores busy: one run at a time. The micro-batches of both layouts hold the same sequences.
layout() {
  local seed ranks=2
  choose || return
  for seed in "${layout_seeds[@]}"; do
    arm micro-2-ranks "$seed" "$(micro "$best_micro")" parallel.expert=2
    arm exact-2-ranks "$seed" "$(exact "$best_exact")" parallel.expert=2
  done
}

controls() {
  local seed steps=150 results=runs/studies/controls
  choose || return
  local quarter=$((steps / 4)) three_quarters=$((3 * steps / 4)) global="scope: global_batch, coefficient: $best_exact"
  for seed in "${control_seeds[@]}"; do
    control micro "$(micro "$best_exact")"
    control exact "$(exact "$best_exact")"
    control shuffle "{scope: shuffle, coefficient: $best_exact}"
    control micro-mixed "$(micro "$best_exact")" data.domain_block=0
    control group-8 "{scope: group, balance_batch_size: 8, coefficient: $best_exact}"
    control group-16 "{scope: group, balance_batch_size: 16, coefficient: $best_exact}"
    control running "{$global, estimator: running}"
    control warm "{$global, estimator: warm}"
    control lagged "{$global, estimator: lagged}"
    control bias-micro '' 'model.moe.router.bias={rate: 0.001, scope: micro_batch}'
    control bias-global '' 'model.moe.router.bias={rate: 0.001, scope: global_batch}'
    control exact-and-micro "$(exact "$best_exact"), $(micro "$(awk "BEGIN { print $best_exact / 100 }")")"
    switched micro-to-exact-early micro exact $quarter
    switched micro-to-exact-late micro exact $three_quarters
    switched exact-to-micro-early exact micro $quarter
    switched exact-to-micro-late exact micro $three_quarters
  done
}
# control NAME BALANCE [key=value ...]: of the control that is being listed
control() { arm "$1" "$seed" "$2" "training.steps=$steps" "${@:3}"; }
# switched NAME FIRST SECOND STEP: the one term before the step, the other from it on; the first step is 0
switched() {
  control "$1" "$("$2" "$best_exact" "last_step: $(($4 - 1))"), $("$3" "$best_exact" "first_step: $4")"
}

quick() {
  local seed results=runs/studies/quick
  local sizes=(training.steps=120 training.global_batch_size=32 data.sequence_length=128 evaluation.interval=0)
  for seed in 21 22 23; do
    arm micro "$seed" "$(micro 0.01)" "${sizes[@]}"
    arm exact "$seed" "$(exact 0.01)" "${sizes[@]}"
  done
}

[ -n "$list" ] || need_data
if [ -n "$quick" ]; then
  parts=(quick)
  [ -n "$list" ] || rm -rf runs/studies/quick  # a check of the program as it is now
  export measured_batches=8
fi
for part in "${parts[@]}"; do
  runs=$("$part")
  if [ -n "$list" ]; then
    printf '%s\n' "$runs"
    continue
  fi
  echo "== $part"
  side_by_side=$jobs
  [ "$part" != layout ] || side_by_side=$(((jobs + 1) / 2))
  run_all "$side_by_side" <<<"$runs"
done

if [ -n "$quick" ] && [ -z "$list" ]; then python3 examples/studies/balance/check.py runs/studies/quick; fi
