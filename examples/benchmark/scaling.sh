#!/usr/bin/env bash
# How a step's time grows with ranks, sequence length, experts, top_k and hidden size: measured, beside the count of
# operations (training_flops_per_token) and beside the time that `conclave validate --machine` calculates.
#
#     bash examples/benchmark/scaling.sh [--busy] [--rounds N] [--steps N] [ranks] [length] [experts] [top_k] [hidden]
#
# Without names: all five. Before each measurement the machine is described anew by `conclave bench --machine`, and the
# step of even load is held against that description: both are the best of their moment. Of the rounds the median
# counts. A step of one rank and thread is told in processor time, of several by the clock on the wall; --busy takes
# processor time everywhere (waiting in MPI included), for a machine that others use too. A round of everything takes
# about three minutes on two quiet cores. Raw figures: runs/scaling, or where SCALING_RESULTS says.
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=3 steps=3 busy='' parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --busy) busy=--busy; shift ;;
    ranks | length | experts | top_k | hidden) parts+=("$1"); shift ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(ranks length experts top_k hidden)

conclave=build/release/conclave
[ -x $conclave ] || { echo "scaling.sh: $conclave is missing; build it first: cmake --preset release && cmake --build --preset release" >&2; exit 2; }
results=${SCALING_RESULTS:-runs/scaling}
recipe=examples/benchmark/scaling.yaml
rm -rf $results
mkdir -p $results

launch() { # RANKS THREADS COMMAND...
  local ranks=$1 threads=$2 root=()
  shift 2
  [ "$(id -u)" -ne 0 ] || root=(--allow-run-as-root)
  if [ "$ranks" -eq 1 ]; then
    OMP_NUM_THREADS=$threads "$@"
  else
    OMP_NUM_THREADS=$threads mpirun "${root[@]}" --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n "$ranks" "$@"
  fi
}

number=0
measure() { # PART NAME RANKS THREADS RANKS_OF_THE_DESCRIPTION key=value ...
  local part=$1 name=$2 ranks=$3 threads=$4 describing=$5 file
  shift 5
  number=$((number + 1))
  file=$results/$part-$(printf %02d $number)
  launch "$describing" 1 $conclave bench --machine "$file.yaml" >/dev/null
  launch "$ranks" "$threads" $conclave bench $recipe --only train --steps "$steps" --json "$@" >"$file.json"
  $conclave validate $recipe --ranks "$ranks" --machine "$file.yaml" --ranks-per-node "$ranks" \
    training.threads="$([ "$describing" -eq 1 ] && echo 1 || echo 0)" "$@" >"$file.txt"
  printf '%s\t%s\t%s\n' "$part" "$name" "$file" >>$results/index.tsv
}

for round in $(seq "$rounds"); do
  number=$((round * 100))
  for part in "${parts[@]}"; do
    case $part in
      ranks) # as much work for all ranks together
        measure ranks '1 rank x 2 threads' 1 2 2
        measure ranks '2 ranks, data' 2 1 2
        measure ranks '2 ranks, expert' 2 1 2 parallel.expert=2
        measure ranks '2 ranks, tensor' 2 1 2 parallel.tensor=2
        measure ranks '4 ranks on 2 cores, data' 4 1 2 training.micro_batch_size=2
        measure ranks '4 ranks on 2 cores, expert' 4 1 2 training.micro_batch_size=2 parallel.expert=4
        measure ranks '8 ranks on 2 cores, data' 8 1 2 training.micro_batch_size=1
        measure ranks '8 ranks on 2 cores, expert' 8 1 2 training.micro_batch_size=1 parallel.expert=8
        ;;
      length)
        for length in 128 256 512 1024 2048; do
          measure length "sequence_length $length" 1 1 1 data.sequence_length=$length \
            training.global_batch_size=$((2048 / length)) training.micro_batch_size=$((2048 / length))
        done ;;
      experts)
        for experts in 8 16 32 64 128 256; do
          measure experts "num_experts $experts" 1 1 1 training.global_batch_size=4 model.moe.num_experts=$experts \
            model.num_hidden_layers=2 model.moe.moe_intermediate_size=128
        done ;;
      top_k)
        for top_k in 1 2 4 8; do
          measure top_k "num_experts_per_tok $top_k" 1 1 1 training.global_batch_size=4 \
            model.moe.num_experts_per_tok=$top_k
        done ;;
      hidden)
        for hidden in 128 256 512 1024; do
          measure hidden "hidden_size $hidden" 1 1 1 training.global_batch_size=2 training.micro_batch_size=2 \
            model.hidden_size=$hidden model.moe.moe_intermediate_size=$hidden model.num_attention_heads=$((hidden / 64)) \
            model.num_key_value_heads=$((hidden / 64)) model.num_hidden_layers=2 model.moe.num_experts=8
        done ;;
    esac
  done
  echo "scaling.sh: round $round of $rounds is done." >&2
done

python3 examples/benchmark/scaling_table.py $busy $results | tee $results/table.md
echo "scaling.sh: done; raw figures are in $results." >&2
