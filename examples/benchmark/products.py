"""The products of a step in bf16: Conclave's rates over the better of oneDNN alone and PyTorch, taken in turn.

    products.py [--rounds N] [--threads N]

The sizes are those of `conclave bench --only products` on examples/benchmark.yaml, and an expert with 37 rows. Weights
that were laid out for oneDNN beforehand are shown and not counted: training would lay them out in every step.
"""
import argparse, json, os, pathlib, statistics, subprocess, tempfile, time

import torch


def conclave_rates(overrides):
    report = json.loads(subprocess.run(
        ['build/release/conclave', 'bench', 'examples/benchmark.yaml', '--only', 'products', '--repeat', '3', '--json',
         'training.precision=bf16', *overrides], check=True, capture_output=True, text=True).stdout)
    return {figure['name'].removeprefix('bf16 '): figure['max'] for figure in report['figures']
            if figure['name'].startswith('bf16 ')}


def torch_rate(m, n, k):
    x, weight = torch.randn(m, k, dtype=torch.bfloat16), torch.randn(n, k, dtype=torch.bfloat16)
    best, spent = float('inf'), 0
    while spent < 0.1:
        begin = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        seconds = time.perf_counter() - begin
        best, spent = min(best, seconds), spent + seconds
    return 2 * m * n * k / best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ['OMP_NUM_THREADS'] = str(arguments.threads)
    few = ['data.sequence_length=74']  # 4 x 74 tokens, 2 of 16 experts for each: 37 rows
    with tempfile.TemporaryDirectory() as scratch:
        program = pathlib.Path(scratch) / 'onednn_products'
        subprocess.run(['c++', '-O2', '-std=c++20', 'examples/benchmark/onednn_products.cpp', '-o', program, '-ldnnl'],
                       check=True)
        rows = {}
        for _ in range(arguments.rounds):
            ours = conclave_rates([])
            ours |= {name: rate for name, rate in conclave_rates(few).items() if name.startswith('expert')}
            sizes = {name: [int(word) for word in name.split() if word.isdigit()] for name in ours}
            alone = subprocess.run([program, '1', *(str(n) for size in sizes.values() for n in size)], check=True,
                                   capture_output=True, text=True).stdout.splitlines()
            for (name, size), line in zip(sizes.items(), alone):
                rows.setdefault(name, []).append((ours[name], *map(float, line.split()), torch_rate(*size)))
    print(f'GF/s in bf16, {arguments.threads} threads; ratio: Conclave over the better of oneDNN, as it lies, and PyTorch')
    for name, rates in rows.items():
        ours, plain, laid_out, torchs = (statistics.median(column) / 1e9 for column in zip(*rates))
        ratios = [a / max(b, d) for a, b, c, d in rates]
        print(f'{name:40s} Conclave {ours:6.0f}  oneDNN {plain:6.0f}, laid out '
              f'{laid_out:6.0f}  PyTorch {torchs:6.0f}  ratio {statistics.median(ratios):.2f} '
              f'({min(ratios):.2f} to {max(ratios):.2f})')


if __name__ == '__main__':
    main()
