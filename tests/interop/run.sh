#!/usr/bin/env bash
# Outside checks: what other programs make of Conclave's files, and Conclave of theirs, with the figures printed.
#
#     bash tests/interop/run.sh [NAME ...]
#
# A name is that of a script beside this one without its .py; without names all run. Each script ends with exit code 0
# when all of its checks hold. They need a Python with the packages of requirements.txt: a virtual environment is made in
# .cache/interop, or INTEROP_PYTHON names a Python that has them. For gguf_files llama-cpp-python is compiled there, which
# takes up to an hour; where that fails, the package gguf alone looks at the files. INTEROP_RUN names a trained run, by
# default the one of launch/quickstart.sh, which is made when it is not there. Not part of the tests: it takes long, and
# gigabytes.
set -euo pipefail
cd "$(dirname "$0")/../.."

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  for script in tests/interop/*.py; do names+=("$(basename "$script" .py)"); done
fi
for name in "${names[@]}"; do
  [ -f "tests/interop/$name.py" ] || { echo "run.sh: there is no tests/interop/$name.py" >&2; exit 2; }
done

python=${INTEROP_PYTHON:-.cache/interop/bin/python}
if [ -z "${INTEROP_PYTHON:-}" ]; then
  [ -x "$python" ] || python3 -m venv .cache/interop
  "$python" -m pip install --quiet -r tests/interop/requirements.txt
  if [[ " ${names[*]} " == *" gguf_files "* ]]; then
    "$python" -m pip install --quiet llama-cpp-python || echo "run.sh: there is no llama.cpp to compare with" >&2
  fi
fi

export INTEROP_RUN=${INTEROP_RUN:-runs/quickstart}
[ -d "$INTEROP_RUN/checkpoints" ] || bash launch/quickstart.sh "output=$INTEROP_RUN"
cmake --preset release >/dev/null
nice cmake --build --preset release --target conclave interop_probe

export INTEROP_CONCLAVE=$PWD/build/release/conclave INTEROP_PROBE=$PWD/build/release/tests/interop/interop_probe
failed=()
for name in "${names[@]}"; do
  printf '\n== %s\n' "$name"
  "$python" "tests/interop/$name.py" || failed+=("$name")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "run.sh: failed: ${failed[*]}"
  exit 1
fi
echo "run.sh: all of ${names[*]} hold."
