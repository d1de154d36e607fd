"""Chooses the arms' coefficients from the sweep; prints them as assignments that a shell can read.

    python3 choose.py RESULTS SEEDS COEFFICIENT...

Of each arm: the coefficient whose validation loss, mean over the sweep's seeds, is lowest. For the comparison at equal
load: the coefficient of the arm exact whose load violation is nearest, as a ratio, to that of micro at its best.
"""
import math, pathlib, statistics, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from results import read_runs


def choose(results, seeds, coefficients):
    def of(arm, coefficient, name):
        return statistics.fmean(getattr(run, name) for run in arms[f'{arm}-{coefficient}'].values())

    arms = read_runs(results)
    for arm in (f'{kind}-{coefficient}' for kind in ('micro', 'exact') for coefficient in coefficients):
        if len(arms.get(arm, {})) != seeds:
            print(f'choose.py: the sweep has {len(arms.get(arm, {}))} of {seeds} runs of {arm}; '
                  'first run: bash examples/studies/balance/run.sh sweep', file=sys.stderr)
            sys.exit(2)
    best = {kind: min(coefficients, key=lambda one: of(kind, one, 'loss')) for kind in ('micro', 'exact')}
    wanted = of('micro', best['micro'], 'violation')
    matched = min(coefficients, key=lambda one: abs(math.log(of('exact', one, 'violation') / wanted)))
    return {'best_micro': best['micro'], 'best_exact': best['exact'], 'matched_exact': matched}


if __name__ == '__main__':
    for name, coefficient in choose(pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]).items():
        print(f'{name}={coefficient}')
