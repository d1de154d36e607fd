"""What TensorBoard's own reader makes of the event files of a run that was stopped, resumed from an earlier checkpoint,
and so wrote some steps twice; held against the run's metrics.jsonl. Started by run.sh, which sets INTEROP_CONCLAVE."""
import json
import math
import os
import shutil
import struct
import subprocess
import tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def float32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def train(run, steps):
    subprocess.run(
        [os.environ["INTEROP_CONCLAVE"], "train", "examples/quickstart.yaml", f"output={run}", f"training.steps={steps}",
         "logging.tensorboard=true", "training.global_batch_size=4", "training.micro_batch_size=2",
         "data.sequence_length=64", "checkpoint.interval=10", "evaluation.interval=10", "evaluation.batches=1"],
        check=True, stdout=subprocess.DEVNULL, env=dict(os.environ, OMP_NUM_THREADS="1"))


def main(run):
    train(run, 17)
    shutil.rmtree(os.path.join(run, "checkpoints", "step-00000017"))  # as if it had died there
    train(run, 30)
    reader = EventAccumulator(
        os.path.join(run, "tensorboard"), size_guidance={"scalars": 0, "histograms": 0, "images": 0}
    )
    reader.Reload()
    tags = reader.Tags()
    scalars = {tag: {event.step: event.value for event in reader.Scalars(tag)} for tag in tags["scalars"]}
    for tag in tags["scalars"]:
        steps = [event.step for event in reader.Scalars(tag)]
        assert steps == sorted(set(steps)), f"{tag}: steps come twice or out of order: {steps}"

    groups = {name: tag for tag in scalars for name in [tag.split("/", 1)[1]]}
    compared = 0
    lines = [json.loads(line) for line in open(os.path.join(run, "metrics.jsonl"))]
    for line in lines:
        if "domain" in line:
            pairs = [(f"validation_loss/{line['domain']}", line["lm_loss"])]
        else:
            pairs = [(groups[name], value) for name, value in line.items() if name != "step"]
        for tag, value in pairs:
            seen = scalars[tag][line["step"]]
            expected = math.nan if value is None else float32(value)
            assert seen == expected or (math.isnan(seen) and math.isnan(expected)), (tag, line["step"], seen, expected)
            compared += 1
    last = max(line["step"] for line in lines)
    assert all(step <= last for values in scalars.values() for step in values), "steps that metrics.jsonl does not have"

    experts = 0
    for tag in tags["histograms"]:
        for event in reader.Histograms(tag):
            value = event.histogram_value
            assert value.num == sum(value.bucket), (tag, event.step)
            assert abs(value.sum / value.num - 1) < 1e-9, f"{tag}: loads are not 1 on average"
            experts = int(value.num)
    pictures = 0
    for tag in tags["images"]:
        for event in reader.Images(tag):
            assert event.encoded_image_string.startswith(b"\x89PNG\r\n\x1a\n"), tag
            assert event.width % experts == 0 or tag.startswith("domains"), (tag, event.width, experts)
            pictures += 1
    assert compared > 0 and experts > 0 and pictures > 0, (compared, experts, pictures)
    print(
        f"TensorBoard reads {compared} scalars as metrics.jsonl has them, {len(tags['histograms'])} histograms of "
        f"{experts} experts and {pictures} pictures; no step twice."
    )


with tempfile.TemporaryDirectory() as folder:
    main(os.path.join(folder, "run"))
