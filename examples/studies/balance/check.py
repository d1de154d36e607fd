"""Ends with 1 unless experts specialise more in the arm exact than in the arm micro, for each seed and by each measure."""
import pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from results import read_runs


def main():
    arms = read_runs(pathlib.Path(sys.argv[1]))
    seeds = sorted(arms['micro'].keys() & arms['exact'].keys())
    against = 0
    for seed in seeds:
        for name in ('information', 'largest_share', 'score_sum'):
            micro, exact = (getattr(arms[arm][seed], name) for arm in ('micro', 'exact'))
            against += not exact > micro
            print(f'seed {seed}: {name} {micro:.3f} with micro-batch counts, {exact:.3f} with global counts')
    if not seeds or against:
        sys.exit(f'{against} of {3 * len(seeds)} measures are not larger with global counts')


if __name__ == '__main__':
    main()
