#!/usr/bin/env bash
# Outside check, not part of the default tests: TensorBoard's own reader opens the event files of a run that was
# stopped, resumed from an earlier checkpoint, and so wrote some steps twice. usage: bash tests/interop/tensorboard.sh
# Makes a virtual environment under build/ with the package `tensorboard`, from the network; CONCLAVE_PYTHON names a
# Python that has it. Needs the built command and text in data/quickstart (bash launch/quickstart.sh).
set -euo pipefail

cd "$(dirname "$0")/../.."
conclave=build/release/conclave
python=${CONCLAVE_PYTHON:-}
if [ -z "$python" ]; then
  environment=build/interop/tensorboard
  python=$environment/bin/python
  if ! "$python" -c 'import tensorboard' 2>/dev/null; then
    python3 -m venv "$environment"
    "$python" -m pip install --quiet tensorboard
  fi
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
train() {
  OMP_NUM_THREADS=1 "$conclave" train examples/quickstart.yaml "output=$folder/run" logging.tensorboard=true \
    training.global_batch_size=4 training.micro_batch_size=2 data.sequence_length=64 checkpoint.interval=10 \
    evaluation.interval=10 evaluation.batches=1 "$@" >/dev/null
}
train training.steps=17
rm -r "$folder/run/checkpoints/step-00000017"  # as if it had died there
train training.steps=30
"$python" tests/interop/read_events.py "$folder/run"
