#!/usr/bin/env bash
# The study of document-level expert pools (EMO, arXiv 2605.06663): are experts modular, so that a part of them serves a
# domain?
#
#     bash examples/studies/pools/run.sh [--jobs N] [--list]
#
# Trains three mixtures of experts on 3 seeds, otherwise alike: 32 routed experts, of which a token visits 2, one shared
# expert, global counts.
#
#   standard    every token chooses from all experts
#   pools       a document's pool is drawn from 3 to 33 experts in training, from 32 on all of them, and has 8 in
#               evaluation: the published proportions
#   pools-wide  from 16 to 33, and 16 in evaluation
#
# From each model `conclave extract` then takes 4, 8 and 16 experts for each of the eight domains, by 64 sequences of the
# domain's training text, and the domain's validation loss is measured with them; 8 experts also with their weights
# times the share of the router's probability that they had among all 32, since a softmax over fewer gives larger weights.
# Models with pools are also measured without: a pool is chosen by the whole document, later tokens included.
# N runs (2) go side by side; what is done is not repeated. --list prints the runs and starts none. Results are in
# runs/studies/pools; `bash examples/studies/evidence.sh` makes tables and plots of them.
set -euo pipefail
# shellcheck source=examples/studies/runs.sh
source "$(dirname "$0")/../runs.sh"

# Longer sequences than in the balance studies, so that a document has more tokens to choose its pool by; the step is as
# large as there.
common=(training.global_batch_size=32 data.sequence_length=512 model.moe.num_shared_experts=1
        'model.moe.balance=[{scope: global_batch, estimator: warm, coefficient: 0.01}]')

# arm NAME SEED [key=value ...]
arm() {
  run_line "runs/studies/pools/$1/$2" 1 examples/studies/balance/study.yaml "training.seed=$2" "${common[@]}" "${@:3}"
}

runs() {
  local seed
  for seed in 31 32 33; do
    arm standard $seed
    arm pools $seed 'model.moe.router.pool={minimum: 3, maximum: 33, evaluation: 8}'
    arm pools-wide $seed 'model.moe.router.pool={minimum: 16, maximum: 33, evaluation: 16}'
  done
}

# What 4, 8 and 16 of the experts are worth to each domain: subsets/DOMAIN-EXPERTS.json, and DOMAIN-8-scaled.json
measure_more() {
  local directory=$1 domains domain experts subset validation share
  domains=$(cat data/quickstart/domains) || return
  mkdir -p "$directory/subsets"
  if [[ $directory == */pools/pools*/* ]] && [ ! -f "$directory/without_pools.json" ]; then
    "$conclave" evaluate "$directory" --json model.moe.router.pool.evaluation=32 >"$directory/without_pools.part" || return
    mv "$directory/without_pools.part" "$directory/without_pools.json"
  fi
  for domain in $domains; do
    for experts in 4 8 16; do
      subset=$directory/subsets/$domain-$experts
      [ ! -f "$subset.json" ] || continue
      rm -rf "$subset"
      "$conclave" extract "$directory" --domain "$domain" --experts "$experts" --output "$subset" >&2 || return
      validation="data.validation=[{path: data/quickstart/$domain-validation, domain: $domain}]"
      "$conclave" evaluate "$subset" --json "$validation" >"$subset.part" || return
      if [ "$experts" = 8 ]; then
        share=$(python3 examples/studies/pools/kept_share.py "$subset/extracted.json") || return
        "$conclave" evaluate "$subset" --json "$validation" "model.moe.router.routed_scaling_factor=$share" \
          "checkpoint.accept_changes=[model.moe.router.routed_scaling_factor]" \
          >"$subset-scaled.json" || return
      fi
      rm -rf "$subset"
      mv "$subset.part" "$subset.json"
    done
  done
}
export -f measure_more

runs | study_of "$@"
