"""Losses and step times of Conclave and of its PyTorch twin, from what run.sh has left; exits with 1 when losses differ."""
import argparse, json, pathlib, statistics, sys


def steps_of(path):
    return [json.loads(line) for line in path.open() if '"lm_loss"' in line and '"split"' not in line]


def spread(values):
    return f'{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('results', type=pathlib.Path)
    parser.add_argument('--rounds', type=int, required=True)
    parser.add_argument('--warm', type=int, default=2, help='first steps that are not timed')
    parser.add_argument('--tolerance', type=float, default=1e-4, help='of losses, relative')
    parser.add_argument('--peers', nargs='+', default=['eager', 'compiled'], help='the names of the peers\' files')
    arguments = parser.parse_args()
    typical, differ = {'conclave': [], **{peer: [] for peer in arguments.peers}}, False
    for number in range(1, arguments.rounds + 1):
        runs = {'conclave': steps_of(arguments.results / f'conclave-{number}' / 'metrics.jsonl')}
        for kind in arguments.peers:
            runs[kind] = steps_of(arguments.results / f'{kind}-{number}.jsonl')
            assert [s['step'] for s in runs[kind]] == [s['step'] for s in runs['conclave']], f'{kind}-{number}'
            for name in ('lm_loss', 'load_balance_loss', 'router_z_loss'):
                away = [abs(a[name] / b[name] - 1) for a, b in zip(runs[kind], runs['conclave'])]
                differ |= away[0] > arguments.tolerance
                print(f'round {number}: {name} of {kind} is {away[0]:.1e} off at step 1, {away[-1]:.1e} at step {len(away)}')
        for kind, steps in runs.items():
            seconds = [s['step_seconds'] for s in steps[arguments.warm:]]
            assert seconds, f'expected more than {arguments.warm} steps'
            typical[kind].append(statistics.median(seconds))
    for kind, seconds in typical.items():
        print(f'{kind}: seconds a step {spread(seconds)}')
    eager = [peer for peer in arguments.peers if peer.startswith('eager')]
    for name, peers in (('eager', eager), ('the best of ' + ', '.join(arguments.peers), arguments.peers)):
        print(f'tokens/s over PyTorch, {name}:',
              spread([min(of) / ours for ours, *of in zip(typical['conclave'], *(typical[peer] for peer in peers))]))
    if differ:
        sys.exit(f'losses at step 1 differ by more than {arguments.tolerance:g}')


if __name__ == '__main__':
    main()
