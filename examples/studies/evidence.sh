#!/usr/bin/env bash
# Everything in docs/evidence.md that was measured, from a clean checkout: builds Conclave, trains and measures all
# studies, which takes hours (docs/evidence.md), and writes the document's tables and plots anew.
#
#     bash examples/studies/evidence.sh [--jobs N] [--tables]
#
# N runs (2) go side by side. What is done is not repeated: stop it and start it again as you like. --tables only writes
# what the runs made so far allow. Python draws and does the statistics: scipy, matplotlib and h5py, in a virtual
# environment that is made in .cache/studies, or in the Python that STUDIES_PYTHON names.
set -euo pipefail
# shellcheck source=examples/studies/runs.sh
source "$(dirname "$0")/runs.sh"

jobs=2 train=yes
while [ $# -gt 0 ]; do
  case $1 in
    --jobs) jobs=${2:?--jobs needs a number}; shift 2 ;;
    --tables) train=''; shift ;;
    *) usage ;;
  esac
done

python=${STUDIES_PYTHON:-.cache/studies/bin/python}
[ -n "${STUDIES_PYTHON:-}" ] || [ -x "$python" ] || python3 -m venv .cache/studies
"$python" -c 'import h5py, matplotlib, scipy' 2>/dev/null || "$python" -m pip install --quiet h5py matplotlib scipy

if [ -n "$train" ]; then
  if [ ! -x "$conclave" ]; then
    bash launch/install_packages.sh
    cmake --preset release
    cmake --build --preset release --target conclave
  fi
  for study in balance experts pools; do
    bash "examples/studies/$study/run.sh" --jobs "$jobs"
  done
fi
"$python" examples/studies/evidence.py
