#!/usr/bin/env bash
# Proves and measures the device cuda of the programs beside this file, part after part, and says how each part ended.
set -uo pipefail

usage() {
  cat <<'TEXT'
usage: bash run.sh [--device cuda|emulated] [--limit SECONDS] [--only PART,PART...] [--report DIR] [--list]

Runs every device test as one process, trains on the GPU beside the CPU, and measures products, kernels and training.
It ends after --limit seconds (600) whatever hangs. DIR (the current directory) gets gpu_report.json and
gpu_report.txt, which are written anew after each part. Every part passed, failed, was cut off or did not run.

  --device emulated   needs no GPU: the device code on the processor's cores, with small sizes
  --only PARTS        some of the parts that --list names

Exit code 0: every part that ran passed. 1: one failed or was cut off. 2: this machine has no GPU, or a wrong request.
TEXT
}
refuse() {
  echo "run.sh: $*; bash run.sh --help tells more." >&2
  exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
device=cuda limit=600 only='' report=$PWD list=''
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --list) list=yes ;;
    --device | --limit | --only | --report)
      [ $# -ge 2 ] || refuse "$1 came without a value"
      case $1 in
        --device) device=$2 ;;
        --limit) limit=$2 ;;
        --only) only=$2 ;;
        --report) report=$2 ;;
      esac
      shift
      ;;
    *) refuse "'$1' is not known" ;;
  esac
  shift
done
[[ $device = cuda || $device = emulated ]] || refuse "--device $device came, expected cuda or emulated"
[[ $limit =~ ^[1-9][0-9]*$ ]] || refuse "--limit $limit came, expected whole seconds"

# NAME|SECONDS AT MOST|WHAT IT SHOWS. A part is the function part_NAME; its output goes to NAME.log.
parts=(
  'kernels|240|every kernel against plain loops, and gradients'
  'model|60|a whole model: the gradients of the CPU, and its losses over 20 steps'
  'layouts|60|a trainer of one rank: losses, checkpoints, recomputation'
  'precision|60|training in bf16 with fp32 master weights'
  'evaluation|60|held-out losses'
  'collectives|60|collectives of one rank on tensors of the device'
  'training|90|the command trains, resumes and generates as on the CPU'
  'products|60|matrix products in fp32 and bf16 beside the best of them'
  'roofline|90|each kernel of a step in bf16 beside its roofline'
  'slice|120|steps of a slice of Qwen3-30B-A3B in bf16, with memory by purpose'
  'sanitizer|90|compute-sanitizer on a small case'
  'twin|120|the same slice in PyTorch on the GPU, eager and compiled'
  'ranks|120|layouts of 2 and 4 ranks, where there are as many GPUs, MPI and NCCL'
)
if [ -n "$list" ]; then
  for line in "${parts[@]}"; do IFS='|' read -r name seconds about <<<"$line"; printf '  %-12s %s (at most %s s)\n' "$name" "$about" "$seconds"; done
  exit 0
fi
for name in ${only//,/ }; do
  printf '%s\n' "${parts[@]}" | grep -q "^$name|" || refuse "--only $name came, which is no part"
done

mkdir -p "$report" || refuse "$report cannot be made"
report=$(cd "$report" && pwd)
logs=$report/gpu_logs
mkdir -p "$logs"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
begin=$SECONDS
bin=$here/bin
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
if [ "$device" = emulated ]; then export CUDA_VISIBLE_DEVICES=''; fi

# ---- libraries

# find_library NAME: the first file of that name in a CUDA Toolkit, the loader's cache or a Python package; nothing else.
find_library() {
  local place
  {
    for place in ${CUDA_HOME:+"$CUDA_HOME/lib64"} ${LD_LIBRARY_PATH:+${LD_LIBRARY_PATH//:/ }} /usr/local/cuda/lib64 /usr/local/cuda-13*/lib64 \
      /usr/lib/x86_64-linux-gnu; do
      if [ -e "$place/$1" ]; then echo "$place/$1"; fi
    done
    ldconfig -p 2>/dev/null | sed -n "s|.*$1 .*=> ||p"
    # torch and nvidia-cublas lay their libraries below site-packages/nvidia.
    for place in $(python3 -c 'import site, sys; print("\n".join(dict.fromkeys(sys.path + site.getsitepackages() + [site.getusersitepackages()])))' 2>/dev/null); do
      if [ -d "$place/nvidia" ]; then find -L "$place/nvidia" -maxdepth 4 -name "$1" 2>/dev/null; fi
    done
  } | head -n 1
}

missing=() found_text=''
rm -rf "$here/lib/found"
mkdir -p "$here/lib/found"
if [ -d "$here/lib/stand_in" ]; then
  for stand_in in "$here"/lib/stand_in/*; do
    [ -e "$stand_in" ] || continue
    name=${stand_in##*/}
    path=$(find_library "$name")
    if [ -n "$path" ]; then
      ln -s "$path" "$here/lib/found/$name"
      found_text+="$name is $path. "
    else
      ln -s "../stand_in/$name" "$here/lib/found/$name"
      missing+=("$name")
      found_text+="$name was not found in CUDA_HOME, LD_LIBRARY_PATH, /usr/local/cuda, the loader's cache or python3's site-packages/nvidia. "
    fi
  done
fi
is_missing() { printf '%s\n' "${missing[@]:-}" | grep -q "^$1"; }

# ---- the report

names=() states=() times=() reasons=()
# One line of JSON text without its quotation marks.
escaped() { printf '%s' "$1" | tr '\n\t' '  ' | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g'; }
machine=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)
doctor=$("$bin/conclave" doctor 2>&1)
gpus=$(printf '%s\n' "$doctor" | sed -n 's/^ *[A-Z]* *\(GPU [0-9]*: .*\)/\1/p')

write_report() {
  local i file=$report/gpu_report
  {
    printf '{"version": "%s", "device": "%s", "processor": "%s", "gpus": "%s", "libraries": "%s", "seconds": %d, "parts": [' \
      "$(escaped "$(cat "$here/version" 2>/dev/null)")" "$device" "$(escaped "$machine")" "$(escaped "$gpus")" \
      "$(escaped "$found_text")" $((SECONDS - begin))
    for i in "${!names[@]}"; do
      printf '%s\n  {"name": "%s", "state": "%s", "seconds": %s, "reason": "%s"' "$([ "$i" -eq 0 ] || echo ,)" "${names[$i]}" \
        "${states[$i]}" "${times[$i]}" "$(escaped "${reasons[$i]}")"
      if [ -s "$logs/${names[$i]}.json" ]; then printf ', "figures": '; cat "$logs/${names[$i]}.json"; fi
      printf '}'
    done
    printf '\n]}\n'
  } >"$file.json.partial" && mv "$file.json.partial" "$file.json"
  {
    echo "Conclave $(cat "$here/version" 2>/dev/null) on the device $device, $((SECONDS - begin)) s"
    echo "Processor: $machine"
    printf '%s\n' "${gpus:-No GPU.}"
    echo "$found_text"
    echo
    for i in "${!names[@]}"; do printf '%-12s %-8s %5s s  %s\n' "${names[$i]}" "${states[$i]}" "${times[$i]}" "${reasons[$i]}"; done
    for i in "${!names[@]}"; do
      if [ -s "$logs/${names[$i]}.txt" ]; then printf '\n== %s\n' "${names[$i]}"; cat "$logs/${names[$i]}.txt"; fi
    done
  } >"$file.txt.partial" && mv "$file.txt.partial" "$file.txt"
}

if [ "$device" = cuda ] && [ -z "$gpus" ]; then
  reasons_text=$(printf '%s\n' "$doctor" | sed -n '/^GPUs/,/^$/p' | sed -n 2p | sed 's/^ *[A-Z]* *//')
  echo "run.sh: this machine has no GPU that the device cuda can use (doctor says: ${reasons_text:-nothing}); expected an NVIDIA GPU with its driver. bash run.sh --device emulated needs none." >&2
  exit 2
fi

# ---- parts. Each prints what it does. Exit code 77 says that it did not run, and its last line says why.

not_run() {
  echo "$*"
  exit 77
}
needs_cublas() {
  if [ "$device" = cuda ] && { is_missing libcublas.so || is_missing libcublasLt.so; }; then
    not_run "cuBLAS 13 was not found: install the CUDA Toolkit 13, or the Python package nvidia-cublas, and start again"
  fi
}
# test_program PROGRAM [FILTER]: on cuda, a case that was skipped for want of the device is a failure.
test_program() {
  needs_cublas
  local output code=0
  output=$("$bin/$1" ${2:+--gtest_filter="$2"} --gtest_brief=0 2>&1) || code=$?
  printf '%s\n' "$output" | tail -n 400
  [ "$code" -eq 0 ] || return "$code"
  if [ "$device" = cuda ] && printf '%s\n' "$output" | grep -qE 'SKIPPED \].*[Cc]uda'; then
    echo "a case for the device cuda was skipped, though there is a GPU"
    return 1
  fi
}
part_kernels() { test_program kernels_test; }
part_model() { test_program emulated_model_test; }
part_layouts() { test_program device_layout_test; }
part_precision() { test_program mixed_precision_test; }
part_evaluation() { test_program evaluator_test; }
part_collectives() { test_program parallel_mpi_test; }

# losses RUN: step and loss of each step.
losses() { sed -n 's/.*"step": *\([0-9]*\).*"lm_loss": *\([0-9.eE+-]*\).*/\1 \2/p' "$1/metrics.jsonl"; }
part_training() {
  needs_cublas
  cd "$here" || return 1  # where data/text is
  local recipe=(recipes/small.yaml)
  if [ "$device" = emulated ]; then
    recipe+=(model.hidden_size=32 model.num_attention_heads=2 model.head_dim=16 model.num_hidden_layers=2 data.sequence_length=32
      training.global_batch_size=4 training.micro_batch_size=2)
  fi
  "$bin/conclave" train "${recipe[@]}" output="$work/cpu" || return 1
  "$bin/conclave" train "${recipe[@]}" output="$work/device" training.device="$device" training.steps=10 || return 1
  "$bin/conclave" train "${recipe[@]}" output="$work/device" training.device="$device" || return 1
  paste <(losses "$work/cpu") <(losses "$work/device") | awk -v device="$device" '
    { if ($1 != $3) bad = "steps differ"; d = ($4 - $2) / $2; if (d < 0) d = -d; if (d > most) most = d; last = $1 }
    END {
      printf "losses over %d steps on cpu and %s: largest relative difference %.2e (at most 1e-4)\n", last, device, most
      exit !(last == 20 && most <= 1e-4 && bad == "")
    }' || return 1
  local of_cpu of_device
  of_cpu=$("$bin/conclave" generate "$work/cpu" --prompt 'The ' --tokens 8 --temperature 0 --device cpu) || return 1
  of_device=$("$bin/conclave" generate "$work/cpu" --prompt 'The ' --tokens 8 --temperature 0 --device "$device") || return 1
  echo "generated on cpu: $of_cpu; on $device: $of_device"
  [ "$of_cpu" = "$of_device" ]
}

# bench PART ARGUMENTS...: figures as text and, measured once, as JSON.
bench() {
  local name=$1
  shift
  needs_cublas
  "$bin/conclave" bench "$@" training.device="$device" --json >"$logs/$name.json" || { rm -f "$logs/$name.json"; return 1; }
  # The lines that a reader wants: name, value, unit, and what it is held against.
  tr -d '\n' <"$logs/$name.json" | sed 's/{ *"subject"/\n&/g' |
    sed -n 's/.*"name": "\([^"]*\)", *"unit": "\([^"]*\)".*"value": \([0-9.e+-]*\), *"min".*"spread": \([0-9.e+-]*\).*/\1|\3|\2|\4|&/p' |
    awk -F'|' '{
      ratio = ""
      if (match($0, /"limit": *\{ *"name": *"[^"]*"/)) { held = substr($0, RSTART, RLENGTH); sub(/.*: *"/, "", held); sub(/"$/, "", held) }
      if (match($0, /"ratio": *[0-9.e+-]+/)) { r = substr($0, RSTART, RLENGTH); sub(/.*: */, "", r); ratio = sprintf("%8.3f of %s", r, held) }
      value = $2; unit = $3
      if (unit == "flop/s") { value /= 1e12; unit = "TF/s" } else if (unit == "B/s" || unit == "B") { value /= 1e9; sub(/^B/, "GB", unit) } else if (unit == "s") { value *= 1e3; unit = "ms" }
      printf "  %-52s %12.4f %-9s %s\n", $1, value, unit, ratio
    }' | tee "$logs/$name.txt"
}

# The slice of Qwen3-30B-A3B that this GPU holds twice, as the same steps with forced balance are measured beside it.
gigabytes=$(printf '%s\n' "$gpus" | sed -n '1s/.*, \([0-9]*\) GiB.*/\1/p')
slice=(model.num_hidden_layers=1 data.sequence_length=4096 training.global_batch_size=1 training.micro_batch_size=1 training.precision=bf16
  parallel.tensor=1 parallel.expert=1 parallel.sequence=false parallel.zero=0 parallel.dispatch_rows=0 training.recompute=none)
if [ "$device" = emulated ]; then
  slice+=(model.vocab_size=512 model.hidden_size=64 model.num_attention_heads=4 model.num_key_value_heads=2 model.head_dim=64
    model.moe.num_experts=16 model.moe.num_experts_per_tok=4 model.moe.moe_intermediate_size=32 data.sequence_length=64)
elif [ "${gigabytes:-0}" -ge 120 ]; then
  slice+=(model.num_hidden_layers=2)
elif [ "${gigabytes:-0}" -lt 20 ]; then
  slice+=(model.vocab_size=16384 model.moe.num_experts=16)
elif [ "${gigabytes:-0}" -lt 40 ]; then
  slice+=(model.vocab_size=32768 model.moe.num_experts=32)
elif [ "${gigabytes:-0}" -lt 70 ]; then
  slice+=(model.vocab_size=32768)
fi
small=()
if [ "$device" = emulated ]; then
  small=(model.hidden_size=64 model.num_attention_heads=2 model.num_key_value_heads=2 data.sequence_length=64 model.vocab_size=512
    model.moe.moe_intermediate_size=64 model.num_hidden_layers=1)
fi
part_products() { bench products "$here/recipes/benchmark.yaml" --only products,memory --repeat 3 "${small[@]}"; }
part_roofline() {
  # The shapes of the slice fill a GPU; those of the small recipe show what launching costs.
  bench roofline "$here/recipes/qwen3-30b-a3b.yaml" --only kernels,layers --repeat 3 "${slice[@]}"
}
part_slice() {
  "$bin/conclave" validate "$here/recipes/qwen3-30b-a3b.yaml" "${slice[@]}" training.device="$device" 2>/dev/null | sed -n '/^Memory per rank/,/^$/p'
  bench slice "$here/recipes/qwen3-30b-a3b.yaml" --only train --steps 8 "${slice[@]}"
}
part_sanitizer() {
  [ "$device" = cuda ] || not_run "compute-sanitizer looks at GPUs alone"
  local tool
  tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) || not_run "compute-sanitizer is not in PATH or /usr/local/cuda"
  needs_cublas
  "$tool" --error-exitcode 9 --tool memcheck "$bin/emulated_model_test" --gtest_filter='*Cuda*' || return 1
}
part_twin() {
  [ "$device" = cuda ] || not_run "the twin in PyTorch is compared on GPUs alone"
  python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null || not_run "python3 has no torch with CUDA"
  twin_sizes >"$work/sizes.json"
  python3 "$here/twin.py" --measure "$work/sizes.json" --device cuda || return 1
  python3 "$here/twin.py" --measure "$work/sizes.json" --device cuda --compile || return 1
  grep '^  PyTorch' "$logs/twin.log" >"$logs/twin.txt"
}
# The sizes of the slice as twin.py reads them: the recipe's own values.
twin_sizes() {
  local key
  of_slice() { "$bin/conclave" validate "$here/recipes/qwen3-30b-a3b.yaml" "${slice[@]}" --print "$1" 2>/dev/null; }
  printf '{'
  for key in vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim rope_theta rms_norm_eps; do
    printf '"%s": %s, ' "$key" "$(of_slice "model.$key")"
  done
  printf '"moe": {"router": {"norm_topk_prob": true}'
  for key in num_experts num_experts_per_tok moe_intermediate_size; do printf ', "%s": %s' "$key" "$(of_slice "model.moe.$key")"; done
  printf '}, "sequence_length": %s, "micro_batch_size": %s, "precision": "bf16"}\n' "$(of_slice data.sequence_length)" \
    "$(of_slice training.micro_batch_size)"
}
part_ranks() {
  [ "$device" = cuda ] || not_run "several ranks on the emulated device are tests of the build"
  local count ranks
  count=$(printf '%s\n' "$gpus" | grep -c .)
  [ "$count" -ge 2 ] || not_run "there is one GPU"
  command -v mpirun >/dev/null || not_run "there is no mpirun"
  ! is_missing libnccl.so || not_run "libnccl.so.2 was not found"
  needs_cublas
  local mpirun=(mpirun --bind-to none)
  [ "$(id -u)" -ne 0 ] || mpirun+=(--allow-run-as-root)
  for ranks in 2 4; do
    [ "$ranks" -le "$count" ] || continue
    for program in parallel_mpi_test device_layout_test mixed_precision_test; do
      "${mpirun[@]}" -n "$ranks" "$bin/$program" || return 1
    done
  done
}

# ---- in order, each within its own limit and what is left of the whole

say() { printf '%-12s %-8s %5s s  %s\n' "$1" "$2" "$3" "$4"; }
failed=0
for line in "${parts[@]}"; do
  IFS='|' read -r name seconds about <<<"$line"
  if [ -n "$only" ] && ! [[ ",$only," == *",$name,"* ]]; then continue; fi
  left=$((limit - (SECONDS - begin) - 5))
  part_begin=$SECONDS state='' reason='' code=0
  rm -f "$logs/$name".{json,txt,log}
  if [ "$left" -lt 5 ]; then
    state='not run' reason="the limit of $limit s came before"
  else
    if [ "$seconds" -gt "$left" ]; then seconds=$left; fi
    # A group of its own, so that whatever a part starts ends with it.
    set -m
    (trap - EXIT; "part_$name") >"$logs/$name.log" 2>&1 &
    child=$!
    set +m
    (
      sleep "$seconds"
      touch "$work/$name.late"
      kill -TERM -- "-$child" 2>/dev/null
      sleep 2
      kill -KILL -- "-$child" 2>/dev/null
    ) >/dev/null 2>&1 &
    watch=$!
    wait "$child" 2>/dev/null || code=$?
    kill "$watch" 2>/dev/null
    wait "$watch" 2>/dev/null
    if [ -e "$work/$name.late" ]; then
      state='cut off' reason="it was still running after $seconds s; $(tail -n 1 "$logs/$name.log" | cut -c1-120)"
    elif [ "$code" -eq 77 ]; then
      state='not run' reason=$(tail -n 1 "$logs/$name.log")
    elif [ "$code" -ne 0 ]; then
      state=failed
      reason=$(grep -m 1 -E '^conclave:|what\(\)|: Failure$|[Ee]rror:' "$logs/$name.log" | cut -c1-200)
      reason+=$(sed -n 's/^\[  FAILED  \] \([^ ,]*\.[^ ,]*\).*/; \1 failed/p' "$logs/$name.log" | sort -u | head -n 3 | tr -d '\n')
      reason=${reason#; }
      reason="exit code $code; ${reason:-$(tail -n 1 "$logs/$name.log" | cut -c1-200)}"
    else
      state=passed reason=$about
    fi
  fi
  case $state in failed | 'cut off') failed=1 ;; esac
  names+=("$name") states+=("$state") times+=($((SECONDS - part_begin))) reasons+=("$reason")
  say "$name" "$state" $((SECONDS - part_begin)) "$reason"
  write_report
done
echo "run.sh: the report is in $report/gpu_report.txt and gpu_report.json, after $((SECONDS - begin)) s."
exit $failed
