#!/usr/bin/env python3
"""The tables of examples/benchmark/scaling.sh from its raw figures: scaling_table.py [--busy] DIRECTORY.

Of each measurement the best step counts, with the router overruled so that all experts get as many rows, and of the
rounds the median; errors are calculated over measured time, round by round. A step of one rank and thread is told in
processor time, which others on the machine do not change; steps of several by the clock on the wall, or with --busy
in processor time as well, times the ranks that share a processor."""
import json
import pathlib
import re
import statistics
import sys

UNITS = {'s': 1.0, 'ms': 1e-3}


def calculated_seconds(path):
    number, unit = re.search(r'^  a step +([0-9.]+) (m?s)$', path.read_text(), re.M).groups()
    return float(number) * UNITS[unit]


def read(stem, busy):
    """Measured and calculated seconds of a step, tokens/s with the recipe's router, operations of a step."""
    report = json.loads(pathlib.Path(stem + '.json').read_text())
    figures = {figure['name']: figure for figure in report['figures']}
    training = report['training']
    even, real = figures['tokens with forced balance'], figures['tokens']
    text = pathlib.Path(stem + '.txt')
    tokens = int(re.search(r'tokens per step, all ranks +([0-9,]+)', text.read_text()).group(1).replace(',', ''))
    alone = report['ranks'] == 1 and report['threads'] == 1
    processors = int(re.search(r'^processors_per_node: ([0-9]+)', pathlib.Path(stem + '.yaml').read_text(), re.M).group(1))
    processor = figures['processor time of a step with forced balance']['min']
    processor *= max(1, report['ranks'] * report['threads'] / processors)
    seconds = processor if alone or busy else tokens / even['max']
    return {'seconds': seconds, 'calculated': calculated_seconds(text), 'tokens': tokens / seconds,
            'real': real['max'] / even['max'], 'flops': tokens * training['model_flops_per_token'],
            'rate': report['matmul_fp32_flops_per_second'] * report['ranks']}


def main():
    rows = {}
    busy = sys.argv[1] == '--busy'
    for line in pathlib.Path(sys.argv[-1], 'index.tsv').read_text().splitlines():
        part, name, stem = line.split('\t')
        rows.setdefault(part, {}).setdefault(name, []).append(read(stem, busy))
    errors = []
    for part, entries in rows.items():
        first = None
        print(f'\n| {part} | tokens/s | its router over even load | GF/s of the model | over the count of operations | step '
              '| calculated | calculated / measured |')
        print('| --- ' * 8 + '|')
        for name, rounds in entries.items():
            def median(value):
                return statistics.median(value(r) for r in rounds)
            per_flop = median(lambda r: r['seconds'] / r['flops'])
            first = first or per_flop
            ratios = sorted(r['calculated'] / r['seconds'] for r in rounds)
            ratio = statistics.median(ratios)
            errors.append((abs(ratio - 1), f'{part}: {name}'))
            print(f"| {name} | {median(lambda r: r['tokens']):.0f} | {median(lambda r: r['real']):.2f} "
                  f"| {1e-9 / per_flop:.1f} | {per_flop / first:.2f} | {1e3 * median(lambda r: r['seconds']):.0f} ms "
                  f"| {1e3 * median(lambda r: r['calculated']):.0f} ms | {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |")
    errors.sort(reverse=True)
    inside = sum(error <= 0.15 for error, _ in errors)
    print(f'\n{inside} of {len(errors)} medians are within 15 percent; the worst is {100 * errors[0][0]:.0f} percent, '
          f'{errors[0][1]}.')


main()
