#!/usr/bin/env bash
# Without nvcc `cmake --preset cuda` stops with a sentence that names it. nvcc is hidden where this machine has one.
# Usage: cuda_preset_test.sh SOURCE_DIRECTORY
set -euo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
hidden=/usr/local/cuda/bin
if [ -n "${CUDA_HOME:-}" ]; then hidden+=";$CUDA_HOME;$CUDA_HOME/bin"; fi
while IFS= read -r nvcc; do hidden+=";$(dirname "$nvcc")"; done < <(type -ap nvcc)

if (cd "$1" && cmake --preset cuda -B "$scratch/build" "-DCMAKE_IGNORE_PATH=$hidden") >"$scratch/log" 2>&1; then
  echo "cuda_preset_test: the configuration went through without nvcc" >&2
  exit 1
fi
# CMake breaks the lines of its messages.
if ! tr -s ' \n' '  ' <"$scratch/log" | grep -qF 'The device cuda needs nvcc, which is not found here. Install it'; then
  tail -n 20 "$scratch/log" >&2
  echo "cuda_preset_test: expected a sentence that names nvcc" >&2
  exit 1
fi
