#!/usr/bin/env python3
"""Holds two builds of Conclave to the same numbers, for changes that are to change none.

usage: python3 tests/structure/same_numbers.py BEFORE AFTER [--only RECIPE] [--steps N] [--keep DIRECTORY]

BEFORE and AFTER are two `conclave` commands. Each trains six recipes for 20 steps in fp32, fp64 and bf16 on
1, 2 and 4 ranks: the quickstart's model, and five that use pools, a capacity, a selection bias, groups of experts and
several balance terms. Losses, gradient norms, balance and every other number of metrics.jsonl must be equal to the last
bit; times and rates are left out. The training text is this repository's own, tokenized by AFTER.
The exit code is 1 where a number differs or a run fails.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = {"documents": "docs/*.md", "layers": "layers/*.cpp", "kernels": "framework/kernels/cpu/*.cpp"}
SMALL = ("model.hidden_size=64 model.num_hidden_layers=3 model.moe.num_experts=8 model.head_dim=16 "
         "model.moe.moe_intermediate_size=32 model.intermediate_size=96 data.sequence_length=64 "
         "training.global_batch_size=16 training.micro_batch_size=2 ")
FOUR = {"quickstart": "", "pools": "parallel.expert=2 parallel.tensor=2 parallel.sequence=true",
        "capacity": "parallel.expert=4 parallel.zero=1", "bias": "parallel.tensor=2 parallel.expert=2",
        "groups": "parallel.expert=2 parallel.expert_tensor=2 parallel.zero=1",
        "several": "parallel.expert=2 parallel.dispatcher=all_gather"}
RECIPES = {
    "quickstart": "training.global_batch_size=16",
    "pools": SMALL + "model.moe.router.pool.minimum=3 model.moe.router.pool.maximum=6 "
                     "model.moe.router.pool.evaluation=6 training.recompute=block",
    "capacity": SMALL + "model.moe.capacity_factor=1.1 model.moe.first_k_dense_replace=1 "
                        "model.moe.layer_reduction=mean model.tie_word_embeddings=true",
    "bias": SMALL + "model.moe.router.kind=sigmoid model.moe.router.bias.rate=0.01 model.moe.router.n_group=4 "
                    "model.moe.router.topk_group=2 model.moe.router.routed_scaling_factor=2.5 "
                    "model.moe.num_shared_experts=1 "
                    "'model.moe.balance=[{scope: sequence, coefficient: 0.001}]'",
    "groups": SMALL + "'model.moe.balance=[{scope: group, balance_batch_size: 4, coefficient: 0.01}, "
                      "{scope: global_batch, estimator: exact, expert_groups: 4, coefficient: 0.02}]'",
    "several": SMALL + "'model.moe.balance=[{scope: sequence, coefficient: 0.003}, {scope: global_batch, "
                       "estimator: warm, coefficient: 0.01}, {scope: micro_batch, coefficient: 0.002, "
                       "last_step: 9}, {scope: shuffle, coefficient: 0.004}]' training.lm_z_loss_coefficient=1e-4 "
                       "'training.batch_ramp={start_batch_size: 8, increment: 8, steps_per_increment: 5}' "
                       "'optimizer.groups=[{pattern: \"*.gate.*\", lr_scale: 0.5}, {pattern: \"*layernorm*\", "
                       "frozen: true}]'",
}
TIMES = ("seconds", "per_second")


def tokenize(conclave, folder):
    """Token files of this repository's own text; the recipe's list of them."""
    entries = []
    for domain, pattern in TEXTS.items():
        text = folder / f"{domain}.txt"
        text.write_bytes(b"\n".join(path.read_bytes() for path in sorted(ROOT.glob(pattern))))
        subprocess.run([conclave, "tokenize", "--output", str(folder / domain), str(text)], check=True,
                       capture_output=True)
        entries.append(f"{{path: '{folder / domain}', domain: {domain}, weight: 1}}")
    return "[" + ", ".join(entries) + "]"


def train(conclave, output, ranks, arguments):
    """The numbers of a run's metrics.jsonl, times left out."""
    command = (f"mpirun --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n {ranks} "
               f"'{conclave}' train '{ROOT}/examples/quickstart.yaml' output='{output}' {arguments}")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode != 0:
        sys.exit(f"A run failed with exit code {done.returncode}:\n{command}\n{done.stdout}{done.stderr}")
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not any(word in key for word in TIMES)} for line in lines]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("before", type=pathlib.Path)
    parser.add_argument("after", type=pathlib.Path)
    parser.add_argument("--only", choices=RECIPES, action="append")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--keep", type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or pathlib.Path(scratch)
        folder.mkdir(exist_ok=True)
        data = tokenize(options.after.resolve(), folder)
        common = (f"training.steps={options.steps} data.train=\"{data}\" data.validation='[]' training.threads=1 "
                  f"data.domain_block=2 checkpoint.interval=0 evaluation.interval=0 logging.tensorboard=false ")
        differ = 0
        for name in options.only or RECIPES:
            for precision in ("fp32", "fp64", "bf16"):
                for ranks in (1, 2, 4):
                    layout = FOUR[name] if ranks == 4 else "parallel.expert=2" if ranks == 2 else ""
                    arguments = f"{common}{RECIPES[name]} training.precision={precision} {layout}"
                    before, after = (train(command.resolve(), folder / f"{name}-{precision}-{ranks}-{which}", ranks,
                                           arguments)
                                     for which, command in (("before", options.before), ("after", options.after)))
                    same = before == after and len(before) == options.steps
                    differ += not same
                    keys = sorted({key for a, b in zip(before, after) for key in a.keys() | b.keys()
                                   if a.get(key) != b.get(key)})
                    print(f"{name:<11}{precision}  {ranks} rank{'s' if ranks > 1 else ' '}  "
                          f"{len(before)} steps, {len(before[0])} numbers each: "
                          f"{'equal' if same else 'DIFFER in ' + ', '.join(keys)}", flush=True)
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
