#!/usr/bin/env bash
# The headline study: does balancing over the global batch lower the loss? Its design was written before its runs
# (docs/evidence/headline_design.md).
#
#     bash examples/studies/headline/run.sh [--jobs N] [--list] [sweep] [pilot] [main] [controls]
#
#   sweep     coefficients 0.003, 0.01, 0.03, 0.1 x {micro, global} x 2 seeds; a neighbour more where the best is an end
#   pilot     6 pairs at the coefficients that the sweep chose. They say which measure spreads least, and how many pairs
#             `main` needs
#   main      as many pairs, with other seeds; then the verdict
#   controls  8 pairs of domain-mixed groups and of shuffled samples; three seeds each of groups of 8 and 32, warm counts,
#             a selection bias with either count, and switches in mid-run
# Without names: all four, in this order; each needs the ones before. N runs (2) go side by side, on a thread each. What is
# done is not repeated: stop it and start it again as you like. --list prints the runs and starts none. Results are in
# runs/studies/headline; each finished run adds its line to docs/evidence/headline.json at once.
set -euo pipefail
# shellcheck source=examples/studies/runs.sh
source "$(dirname "$0")/../runs.sh"

jobs=2 list='' parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --jobs) jobs=${2:?--jobs needs a number}; shift 2 ;;
    --list) list=yes; shift ;;
    sweep | pilot | main | controls) parts+=("$1"); shift ;;
    *) usage ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(sweep pilot main controls)

recipe=examples/studies/headline/study.yaml
results=runs/studies/headline
python=${STUDIES_PYTHON:-.cache/studies/bin/python}
[ -n "${STUDIES_PYTHON:-}" ] || [ -x "$python" ] || python3 -m venv .cache/studies
"$python" -c 'import scipy' 2>/dev/null || "$python" -m pip install --quiet scipy
export python
study() { "$python" examples/studies/headline/decide.py "$@"; }

# Tokens of a vocabulary that was trained on the training text of all domains.
need_tokens() {
  [ ! -f data/headline/complete ] || return 0
  need_data
  local text domain part
  text=$(mktemp -d)
  mkdir -p data/headline
  for domain in english computing dictionary french german japanese python c; do
    for part in "$domain" "$domain-validation"; do
      python3 examples/studies/headline/bytes_to_text.py "data/quickstart/$part" "$text/$part.jsonl" >"data/headline/$part.bytes"
    done
  done
  "$conclave" tokenize --train-sentencepiece data/headline/vocabulary --vocab-size 4096 \
    "$text"/{english,computing,dictionary,french,german,japanese,python,c}.jsonl
  for part in "$text"/*.jsonl; do
    domain=$(basename "$part" .jsonl)
    "$conclave" tokenize --replace --tokenizer data/headline/vocabulary.model --domain "${domain%-validation}" \
      --output "data/headline/$domain" "$part"
  done
  rm -rf "$text"
  touch data/headline/complete
}

# Balance terms. A group of 2 sequences of one domain is the micro-batch of 2 of the paper, without its small products.
micro() { echo "{scope: group, balance_batch_size: ${2:-2}, coefficient: $1}"; }
global() { echo "{scope: global_batch, estimator: exact, coefficient: $1}"; }

# arm NAME SEED BALANCE [key=value ...]
arm() { run_line "$results/$1/$2" 1 "$recipe" "training.seed=$2" "model.moe.balance=[$3]" "${@:4}"; }

# The coefficients may grow by a neighbour, so the sweep is listed anew until the best lies inside.
sweep() {
  local coefficient seed
  for coefficient in $(study coefficients); do
    for seed in 1 2; do
      arm "micro-$coefficient" "$seed" "$(micro "$coefficient")"
      arm "global-$coefficient" "$seed" "$(global "$coefficient")"
    done
  done
}

# pairs SEED...: both arms at their own coefficients
pairs() {
  local seed chosen
  chosen=$(study choose) || return
  eval "$chosen"
  for seed in "$@"; do
    arm "${prefix}micro" "$seed" "$(micro "$best_micro")" "${changes[@]}"
    arm "${prefix}global" "$seed" "$(global "$best_global")" "${changes[@]}"
  done
}
prefix='' changes=()
pilot() { prefix=pilot- pairs $(seq 101 106); }
main() {
  local count
  count=$(study pairs) || return
  pairs $(seq 201 $((200 + count)))
}

controls() {
  local seed chosen
  chosen=$(study choose) || return
  eval "$chosen"
  prefix=mixed- changes=(data.domain_block=0) pairs $(seq 301 308)
  for seed in $(seq 301 308); do
    arm shuffle "$seed" "{scope: shuffle, coefficient: $best_micro}" training.micro_batch_size=2
    arm shuffle-global "$seed" "$(global "$best_global")"
  done
  for seed in 401 402 403; do
    arm control-micro "$seed" "$(micro "$best_micro")"
    arm control-global "$seed" "$(global "$best_global")"
    arm group-8 "$seed" "$(micro "$best_global" 8)"
    arm group-32 "$seed" "$(micro "$best_global" 32)"
    arm warm "$seed" "{scope: global_batch, estimator: warm, coefficient: $best_global}"
    arm bias-micro "$seed" '' 'model.moe.router.bias={rate: 0.001, scope: micro_batch}' training.micro_batch_size=2
    arm bias-global "$seed" '' 'model.moe.router.bias={rate: 0.001, scope: global_batch}'
    arm micro-then-global "$seed" "{scope: group, balance_batch_size: 2, coefficient: $best_micro, last_step: 199}, {scope: global_batch, estimator: exact, coefficient: $best_global, first_step: 200}"
    arm global-then-micro "$seed" "{scope: global_batch, estimator: exact, coefficient: $best_global, last_step: 199}, {scope: group, balance_batch_size: 2, coefficient: $best_micro, first_step: 200}"
  done
}

# A finished run is in the list at once, so that a lost machine loses the runs that were under way.
run_ended() { flock docs/evidence "$python" examples/studies/headline/decide.py collect; }
export -f run_ended

[ -n "$list" ] || need_tokens
for part in "${parts[@]}"; do
  while true; do
    runs=$("$part")
    if [ -n "$list" ]; then printf '%s\n' "$runs"; break; fi
    echo "== $part"
    run_all "$jobs" <<<"$runs"
    [ "$part" = sweep ] && [ "$runs" != "$(sweep)" ] || break
  done
done
[ -n "$list" ] || study verdict
