#!/usr/bin/env bash
# The study of experts: coarse against fine-grained ones, with and without shared ones, at equal parameters, as
# DeepSeekMoE was compared (Dai et al., arXiv 2401.06066).
#
#     bash examples/studies/experts/run.sh [--jobs N] [--list]
#
# The recipe is that of the balance studies with other experts. As `conclave validate` counts them, the arms agree within
# 0.6 percent in all parameters and within 0.8 percent in those that a token meets; a width of 30 instead of 32 pays for
# the routers of many experts:
#
#   arm              experts                                                       parameters  active per token
#   coarse-top-1     8, 1 of them per token, 256 wide (Switch)                      2,641,984           577,600
#   coarse-top-2     16, 2 of them per token, 128 wide (GShard)                     2,645,056           580,672
#   fine             68, 8 of them per token, 30 wide                               2,655,808           582,208
#   fine-2-shared    66, 6 of them per token, and 2 for every token (DeepSeekMoE)   2,655,040           581,440
#   fine-by-groups   the same, with a second balance term, over 6 groups of 11 experts (its device-level loss)
#
# 3 seeds each, half as long as there, balanced over the global batch by the default estimator. N runs (2) go side by
# side. What is done is not repeated: stop it and start it again as you like. --list prints the runs and starts none.
# Results are in runs/studies/experts; `bash examples/studies/evidence.sh` makes tables and plots of them.
set -euo pipefail
# shellcheck source=examples/studies/runs.sh
source "$(dirname "$0")/../runs.sh"

over='scope: global_batch, estimator: warm'

# arm NAME EXPERTS CHOSEN WIDTH SHARED [BALANCE]: of the seed; BALANCE is what acts beside the usual term
arm() {
  run_line "runs/studies/experts/$1/$seed" 1 examples/studies/balance/study.yaml "training.seed=$seed" training.steps=150 \
    "model.moe.num_experts=$2" "model.moe.num_experts_per_tok=$3" "model.moe.moe_intermediate_size=$4" \
    "model.moe.num_shared_experts=$5" "model.moe.balance=[{$over, coefficient: 0.01}${6:+, $6}]"
}

for seed in 11 12 13; do
  arm coarse-top-1 8 1 256 0
  arm coarse-top-2 16 2 128 0
  arm fine 68 8 30 0
  arm fine-2-shared 66 6 30 2
  arm fine-by-groups 66 6 30 2 "{$over, coefficient: 0.05, expert_groups: 6}"
done | study_of "$@"
