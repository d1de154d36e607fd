#!/usr/bin/env bash
# From a fresh machine to a trained mixture-of-experts model: installs what is missing, builds, prepares real text,
# trains examples/quickstart.yaml on two MPI ranks, evaluates it per domain and lets it write a sample.
# Running it again costs nothing: each phase recognises its finished work.
#   bash launch/quickstart.sh                         the whole: less than 15 minutes on two cores, from nothing
#   bash launch/quickstart.sh --short                 three steps into a directory of their own: does everything work?
#   bash launch/quickstart.sh training.steps=600 ...  other values (key.path=value) for `train`
set -euo pipefail

cd "$(dirname "$0")/.."
recipe=examples/quickstart.yaml
conclave=build/release/conclave
ranks=2
begin=$SECONDS

say() { printf '\n== %s\n' "$*"; }

# phase TITLE COMMAND...: runs the command and prints its time; a failure ends the script with one sentence and the
# exit code of the command, which says whose fault it was (docs: 2 request, 3 data, 4 numbers, 5 machine, 75 stopped).
phase() {
  local title=$1 start=$SECONDS code=0
  shift
  say "$title"
  "$@" || code=$?
  if [ "$code" -eq 75 ]; then
    say "stopped on request and saved; run bash launch/quickstart.sh again to go on."
    exit 75
  elif [ "$code" -ne 0 ]; then
    say "quickstart stopped: '$title' failed with exit code $code, for the reason above." >&2
    exit "$code"
  fi
  echo "   ($((SECONDS - start)) s)"
}

build() {
  local log=build/quickstart_build.log
  mkdir -p build
  cmake --preset release >"$log" 2>&1 || { tail -n 20 "$log" >&2; return 5; }
  if [ -t 1 ]; then
    cmake --build --preset release --target conclave
  else
    cmake --build --preset release --target conclave >>"$log" 2>&1 || { tail -n 30 "$log" >&2; return 5; }
    tail -n 1 "$log"
  fi
}

train() {
  local options=(--oversubscribe --bind-to none)
  if [ "$(id -u)" -eq 0 ]; then options+=(--allow-run-as-root); fi
  if [ "$(nproc)" -lt "$ranks" ]; then options+=(--mca mpi_yield_when_idle 1); fi
  mpirun "${options[@]}" -n "$ranks" "$conclave" train "$recipe" "$@"
}

# Where a domain's package could not be had, the recipe's lists are replaced by what there is.
domain_overrides=()
find_domains() {
  local domains train_list='' validation_list='' domain
  read -r -a domains <data/quickstart/domains
  [ ${#domains[@]} -lt 8 ] || return 0
  for domain in "${domains[@]}"; do
    train_list+="${train_list:+, }{path: data/quickstart/$domain, domain: $domain}"
    validation_list+="${validation_list:+, }{path: data/quickstart/$domain-validation, domain: $domain}"
  done
  domain_overrides=("data.train=[$train_list]" "data.validation=[$validation_list]")
}

# Three steps, and little of what is measured after them. Later arguments win over these.
evaluation=() sample=()
if [ "${1:-}" = --short ]; then
  shift
  set -- training.steps=3 evaluation.batches=1 output=runs/quickstart_short "$@"
  evaluation=(--batches 1) sample=(--tokens 32)
fi

phase "1/7 packages" bash launch/install_packages.sh
phase "2/7 build" build
output=$("$conclave" validate "$recipe" "$@" --print output)  # as the recipe and the arguments say it
phase "3/7 real text in eight domains" bash launch/prepare_quickstart_data.sh
find_domains
phase "4/7 training on $ranks ranks" train ${domain_overrides[@]+"${domain_overrides[@]}"} "$@"
phase "5/7 loss and experts per domain" "$conclave" evaluate "$output" ${evaluation[@]+"${evaluation[@]}"}
phase "6/7 a sample" "$conclave" generate "$output" --prompt "In the beginning" ${sample[@]+"${sample[@]}"}
phase "7/7 a page of curves and heat maps" "$conclave" report "$output"

page=$(printf '%q' "$output/report.html") run=$(printf '%q' "$output")
say "A mixture-of-experts model was trained on $ranks ranks in $((SECONDS - begin)) s in all; everything it left is in $output."
echo "   Look: open $page in a browser."
echo "   Next: change a number in $recipe (or say it here: bash launch/quickstart.sh training.steps=600 output=runs/longer),"
echo "   look into a checkpoint ($conclave inspect $run), or read docs/tour.md."
