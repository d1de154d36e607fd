"""Decisions and verdict of the headline study, by the rules of docs/evidence/headline_design.md.

    python3 decide.py coefficients   the coefficients of the sweep, with a neighbour where the best so far is an end
    python3 decide.py choose         best_micro and best_global, as assignments that a shell can read
    python3 decide.py pairs          how many pairs the main comparison has; the pilot must be done
    python3 decide.py collect        adds finished runs to docs/evidence/headline.json
    python3 decide.py verdict        the comparison and what it shows, as far as the runs go
"""
import dataclasses, json, pathlib, statistics, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from paired import paired, pairs_needed
from results import lines_of, read_run

RESULTS = pathlib.Path('runs/studies/headline')
LIST = pathlib.Path('docs/evidence/headline.json')
COEFFICIENTS = [0.003, 0.01, 0.03, 0.1]
SWEEP_SEEDS = 2
SMALLEST_GAIN, GAIN = 0.016, 0.020  # nats per token: the least of the paper, and what the study is to see
FEWEST, MOST = 24, 40               # pairs: by the issue, and by six hours on two cores
LAST_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Run:
    arm: str
    seed: int
    held_out: float      # nats per token of the last checkpoint on all held-out text, domains weighing alike
    last_steps: float    # nats per token in training, mean of the last 50 steps: text that was not seen before
    both: float          # the mean of the two
    per_byte: float      # held_out as nats per byte
    information: float
    largest_share: float
    score_sum: float
    violation: float


def read(directory):
    run = read_run(directory)
    steps = [line['lm_loss'] for line in lines_of(directory / 'metrics.jsonl') if 'split' not in line and 'lm_loss' in line]
    last = statistics.fmean(steps[-LAST_STEPS:])
    per_byte = []
    for domain, loss in run.domain_losses.items():
        text = pathlib.Path(f'data/headline/{domain}-validation')
        tokens = text.with_suffix('.bin').stat().st_size / 2
        per_byte.append(loss * tokens / int(text.with_suffix('.bytes').read_text()))
    return Run(run.arm, run.seed, run.loss, last, (run.loss + last) / 2, statistics.fmean(per_byte), run.information,
               run.largest_share, run.score_sum, run.violation)


def known():
    """The runs of the list, and those that have ended since, by arm and seed."""
    arms = {}
    for line in json.loads(LIST.read_text()) if LIST.exists() else []:
        arms.setdefault(line['arm'], {})[line['seed']] = Run(**line)
    for path in sorted(RESULTS.glob('*/*/evaluation.json')):
        run = read(path.parent)
        arms.setdefault(run.arm, {})[run.seed] = run
    return arms


def collect():
    runs = [run for _, seeds in sorted(known().items()) for _, run in sorted(seeds.items())]
    partial = LIST.with_suffix('.json.partial')
    partial.write_text('[\n' + ',\n'.join(json.dumps(dataclasses.asdict(run)) for run in runs) + '\n]\n')
    partial.replace(LIST)


def sweep_losses(arms, kind):
    """Mean held-out loss by coefficient, of those that have all seeds."""
    found = {}
    for arm, seeds in arms.items():
        name, _, coefficient = arm.rpartition('-')
        if name == kind and coefficient.replace('.', '').isdigit() and len(seeds) >= SWEEP_SEEDS:
            found[float(coefficient)] = statistics.fmean(run.held_out for run in seeds.values())
    return found


def coefficients(arms):
    wanted = set(COEFFICIENTS)
    for kind in ('micro', 'global'):
        losses = sweep_losses(arms, kind)
        while losses.keys() >= wanted:
            best = min(losses, key=losses.get)
            if best == max(wanted):
                wanted.add(round(best * 3, 6))
            elif best == min(wanted):
                wanted.add(round(best / 3, 6))
            else:
                break
    return sorted(wanted)


def choose(arms):
    best = {}
    for kind in ('micro', 'global'):
        losses = sweep_losses(arms, kind)
        if not losses.keys() >= set(coefficients(arms)):
            sys.exit(f'decide.py: the sweep has {len(losses)} of {len(coefficients(arms))} coefficients of {kind}; '
                     'first run: bash examples/studies/headline/run.sh sweep')
        best[kind] = min(losses, key=losses.get)
    return best


def measure_of(arms):
    """The measure whose differences spread least over the pilot's pairs, and that spread."""
    first, second = arms.get('pilot-micro', {}), arms.get('pilot-global', {})
    if len(first.keys() & second.keys()) < 6:
        sys.exit(f'decide.py: the pilot has {len(first.keys() & second.keys())} of 6 pairs; '
                 'first run: bash examples/studies/headline/run.sh pilot')
    spreads = {name: paired(first, second, name).deviation for name in ('held_out', 'last_steps', 'both')}
    name = min(spreads, key=spreads.get)
    return name, spreads[name]


def count_of_pairs(arms):
    _, deviation = measure_of(arms)
    return min(MOST, max(FEWEST, pairs_needed(GAIN, deviation)))


def judge(difference):
    """The verdict on global - micro, nats per token."""
    if difference.high < 0 and difference.sign_p < 0.05:
        return 'shown: the loss is lower with global counts'
    if difference.low > 0 and difference.sign_p < 0.05:
        return 'the contrary is shown: the loss is higher with global counts'
    if difference.low > -SMALLEST_GAIN:
        return f'excluded: a gain of {SMALLEST_GAIN} nats per token or more'
    return 'undecided'


def line(name, difference, unit):
    return (f'{name}: {difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}) {unit}, lower in '
            f'{len(difference.differences) - difference.above} of {len(difference.differences)} pairs, '
            f'sign test p = {difference.sign_p:.3g}, spread {difference.deviation:.4f}')


def verdict(arms):
    count, (name, deviation) = count_of_pairs(arms), measure_of(arms)
    print(f'pilot: the measure is {name}, whose differences spread by {deviation:.4f}; {count} pairs')
    first, second = arms.get('micro', {}), arms.get('global', {})
    done = len(first.keys() & second.keys())
    if done < count:
        print(f'main: {done} of {count} pairs are done; the verdict waits for all of them')
        return
    difference = paired(first, second, name)
    print(line(f'global - micro, {name}', difference, 'nats per token'))
    print(line('global - micro, held_out', paired(first, second, 'held_out'), 'nats per token'))
    print(line('global - micro, per_byte', paired(first, second, 'per_byte'), 'nats per byte'))
    for measure in ('information', 'largest_share', 'score_sum'):
        print(line(f'global - micro, {measure}', paired(first, second, measure), ''))
    print(f'verdict: {judge(difference)}')


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    arms = known()
    match sys.argv[1]:
        case 'coefficients':
            print(*coefficients(arms))
        case 'choose':
            for kind, best in choose(arms).items():
                print(f'best_{kind}={best}')
        case 'pairs':
            print(count_of_pairs(arms))
        case 'collect':
            collect()
        case 'verdict':
            verdict(arms)
        case _:
            sys.exit(__doc__)


if __name__ == '__main__':
    main()
