#!/usr/bin/env bash
# The balance studies: what the scope of the load-balancing loss does to experts and to the loss.
#
#     bash examples/studies/balance/run.sh [--jobs N] [--list] [--quick] [sweep] [main] [controls] [layout]
#
#   sweep     coefficients 0.003, 0.01, 0.03, 0.1 x {micro_batch, global_batch exact} x 2 seeds. It chooses, for each
#             arm, the coefficient with the lowest validation loss; nothing else is read from it
#   main      both arms at their coefficient, and micro_batch at that of global_batch, 8 other seeds in pairs
#   controls  3 of these seeds each of: both arms at equal load, shuffled tokens, mixed micro-batches, the other
#             estimators, groups of 8 and 16 sequences, a selection bias in place of the loss, both scopes at once,
#             switches of scope at a quarter and at three quarters of the run
#   layout    main once more on 2 ranks that share the experts
# Without names: all four, in this order, which is also the order in which they need one another. N runs (2) go side by
# side. What is done is not repeated: stop it and start it again as you like. --list prints the runs and starts none.
# --quick instead trains 3 pairs of 0.5 MB each, in some two minutes, and ends with 1 unless experts specialise more
# with global counts in every pair. Results are in runs/studies/balance; `bash examples/studies/evidence.sh` makes
# tables and plots of them.
set -euo pipefail
cd "$(dirname "$0")/../../.."
# shellcheck source=examples/studies/runs.sh
source examples/studies/runs.sh

jobs=2 list='' quick='' parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --jobs) jobs=$2; shift 2 ;;
    --list) list=yes; shift ;;
    --quick) quick=yes; shift ;;
    sweep | main | controls | layout) parts+=("$1"); shift ;;
    *) sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(sweep main controls layout)

recipe=examples/studies/balance/study.yaml
results=runs/studies/balance
sweep_seeds=(1 2)
main_seeds=(11 12 13 14 15 16 17 18)
control_seeds=(11 12 13)

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
  for coefficient in 0.01 0.03 0.003 0.1; do
    for seed in "${sweep_seeds[@]}"; do
      arm "micro-$coefficient" "$seed" "$(micro $coefficient)"
      arm "exact-$coefficient" "$seed" "$(exact $coefficient)"
    done
  done
}

# Sets best_micro, best_exact and matched_exact from the sweep.
choose() {
  if [ ! -f $results/chosen ]; then
    local chosen
    chosen=$(python3 examples/studies/balance/choose.py $results "${#sweep_seeds[@]}") || return 2
    echo "$chosen" >$results/chosen
  fi
  # shellcheck disable=SC1091
  source $results/chosen
}

main() {
  local seed
  choose || return
  for seed in "${main_seeds[@]}"; do
    arm micro "$seed" "$(micro "$best_micro")"
    arm exact "$seed" "$(exact "$best_exact")"
    if [ "$best_micro" != "$best_exact" ]; then arm micro-equal "$seed" "$(micro "$best_exact")"; fi
  done
}

# All with the coefficient of the arm exact, so that what is counted is all that differs.
controls() {
  local seed quarter=75 three_quarters=225  # of the recipe's 300 steps; the first step is 0
  choose || return
  for seed in "${control_seeds[@]}"; do
    if [ "$matched_exact" != "$best_exact" ]; then arm exact-matched "$seed" "$(exact "$matched_exact")"; fi
    arm shuffle "$seed" "{scope: shuffle, coefficient: $best_exact}"
    arm micro-mixed "$seed" "$(micro "$best_exact")" data.domain_block=0
    arm group-8 "$seed" "{scope: group, balance_batch_size: 8, coefficient: $best_exact}"
    arm group-16 "$seed" "{scope: group, balance_batch_size: 16, coefficient: $best_exact}"
    arm running "$seed" "{scope: global_batch, estimator: running, coefficient: $best_exact}"
    arm warm "$seed" "{scope: global_batch, estimator: warm, coefficient: $best_exact}"
    arm lagged "$seed" "{scope: global_batch, estimator: lagged, coefficient: $best_exact}"
    arm bias-micro "$seed" '' 'model.moe.router.bias={rate: 0.001, scope: micro_batch}'
    arm bias-global "$seed" '' 'model.moe.router.bias={rate: 0.001, scope: global_batch}'
    arm exact-and-micro "$seed" "$(exact "$best_exact"), $(micro "$(awk "BEGIN { print $best_exact / 100 }")")"
    switched micro-to-exact-early micro exact "$quarter"
    switched micro-to-exact-late micro exact "$three_quarters"
    switched exact-to-micro-early exact micro "$quarter"
    switched exact-to-micro-late exact micro "$three_quarters"
  done
}

# switched NAME FIRST SECOND STEP: the one term before the step, the other from it on
switched() {
  arm "$1" "$seed" "$("$2" "$best_exact" "last_step: $(($4 - 1))"), $("$3" "$best_exact" "first_step: $4")"
}

# Two ranks keep two cores busy: one run at a time. The micro-batches of both layouts hold the same sequences.
layout() {
  local seed ranks=2
  choose || return
  for seed in "${main_seeds[@]}"; do
    arm micro-2-ranks "$seed" "$(micro "$best_micro")" parallel.expert=2
    arm exact-2-ranks "$seed" "$(exact "$best_exact")" parallel.expert=2
  done
}

quick() {
  local seed sizes=(training.steps=120 training.global_batch_size=32 data.sequence_length=128 evaluation.interval=0)
  for seed in 21 22 23; do
    arm micro "$seed" "$(micro 0.01)" "${sizes[@]}"
    arm exact "$seed" "$(exact 0.01)" "${sizes[@]}"
  done
}

[ -n "$list" ] || need_data
if [ -n "$quick" ]; then
  results=runs/studies/quick
  [ -n "$list" ] || rm -rf $results  # a check of the program as it is now
  parts=(quick)
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

if [ -n "$quick" ] && [ -z "$list" ]; then python3 examples/studies/balance/check.py $results; fi
