"""Chooses the arms' coefficients from the sweep; prints them as assignments that a shell can read.

    python3 choose.py RESULTS SEEDS

Of each arm: the coefficient whose validation loss, mean over the sweep's seeds, is lowest. For the comparison at equal
load: the coefficient of the arm exact whose load violation is nearest, as a ratio, to that of micro at its best.
"""
import math, pathlib, statistics, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from results import read_runs


def choose(results, seeds):
    def of(arm, coefficient, name):
        return statistics.fmean(getattr(run, name) for run in arms[f'{arm}-{coefficient}'].values())

    arms = read_runs(results)
    coefficients = {kind: [arm.split('-', 1)[1] for arm in arms if arm.startswith(kind + '-0')]
                    for kind in ('micro', 'exact')}
    swept = {kind: [arm for arm in names if len(arms[f'{kind}-{arm}']) == seeds] for kind, names in coefficients.items()}
    if not swept['micro'] or swept['micro'] != swept['exact'] or swept != coefficients:
        sys.exit('choose.py: the sweep is not complete; first run: bash examples/studies/balance/run.sh sweep')
    best = {kind: min(coefficients[kind], key=lambda one: of(kind, one, 'loss')) for kind in coefficients}
    wanted = of('micro', best['micro'], 'violation')
    matched = min(coefficients['exact'], key=lambda one: abs(math.log(of('exact', one, 'violation') / wanted)))
    return {'best_micro': best['micro'], 'best_exact': best['exact'], 'matched_exact': matched}


if __name__ == '__main__':
    for name, coefficient in choose(pathlib.Path(sys.argv[1]), int(sys.argv[2])).items():
        print(f'{name}={coefficient}')
