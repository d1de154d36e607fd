"""The balance study's tables: sweep, main comparison, controls, trend, second layout."""
import dataclasses, statistics

from paired import paired, pairs_needed, trend

MEASURES = {  # of a Run, as tables call them; those in which specialisation shows come first
    'information': 'mutual information', 'largest_share': 'largest share', 'score_sum': 'score sum',
    'overlap': 'overlap', 'entropy': 'routing entropy', 'violation': 'load violation', 'loss': 'loss'}


def row(*cells):
    return '| ' + ' | '.join(str(cell) for cell in cells) + ' |'


def head(*cells):
    return [row(*cells), row(*['---'] * len(cells))]


def seeds_of(*arms):
    """The seeds that all of them have."""
    return sorted(set.intersection(*map(set, arms)))


def mean(runs, name, seeds=None):
    """None unless it is defined for all seeds."""
    values = [getattr(runs[seed], name) for seed in seeds or sorted(runs)]
    return None if None in values else statistics.fmean(values)


def number(value, digits=4):
    return '–' if value is None else f'{value:.{digits}f}'


def interval(comparison, digits=4):
    return (f'{comparison.mean:+.{digits}f} ({comparison.low:+.{digits}f} to {comparison.high:+.{digits}f})')


def sweep_table(arms):
    lines = head('coefficient', 'arm', 'loss', 'mutual information', 'load violation')
    swept = sorted((float(arm.split('-', 1)[1]), arm.split('-', 1)[0], runs) for arm, runs in arms.items()
                   if arm.split('-', 1)[0] in ('micro', 'exact') and arm.split('-', 1)[-1][0] == '0')
    for coefficient, kind, runs in swept:
        lines.append(row(f'{coefficient:g}', kind, *(f'{mean(runs, name):.4f}' for name in ('loss', 'information')),
                         f"{mean(runs, 'violation'):.2f}"))
    return lines


def pair_tables(arms, micro, exact):
    """Each seed's pair, and what the pairs say together."""
    first, second = arms[micro], arms[exact]
    seeds = seeds_of(first, second)
    each = head('seed', *(f'{MEASURES[name]}, micro / global' for name in ('information', 'largest_share', 'score_sum')),
                'loss, micro', 'loss, global', 'difference')
    for seed in seeds:
        a, b = first[seed], second[seed]
        each.append(row(seed, *(f'{getattr(a, name):.3f} / {getattr(b, name):.3f}'
                                for name in ('information', 'largest_share', 'score_sum')),
                        f'{a.loss:.4f}', f'{b.loss:.4f}', f'{b.loss - a.loss:+.4f}'))
    together = head('measure', 'micro', 'global', 'global - micro, 95% interval', 'deviation', 'global higher in',
                    'sign test p')
    for name, title in MEASURES.items():
        means = [mean(runs, name, seeds) for runs in (first, second)]
        if None in means:
            together.append(row(title, *map(number, means), 'not defined in every pair', '', '', ''))
            continue
        comparison = paired(first, second, name)
        together.append(row(title, *map(number, means), interval(comparison), f'{comparison.deviation:.4f}',
                            f'{len(seeds) - comparison.below} of {len(seeds)}', f'{comparison.sign_p:.3f}'))
    loss = paired(first, second, 'loss')
    together += ['', (f'To see a difference in loss as large as this one with a power of 80% at the 5% level takes '
                      f'{pairs_needed(loss)} pairs with such a spread.')]
    return each, together


CONTROLS = {  # arm: what it is
    'micro': 'micro-batch counts', 'exact': 'global counts',
    'shuffle': 'counts of as many shuffled tokens as a micro-batch has',
    'micro-mixed': 'micro-batch counts, each micro-batch a mixture of domains',
    'group-8': 'counts of 8 sequences', 'group-16': 'counts of 16 sequences',
    'running': 'global, estimator `running`', 'warm': 'global, estimator `warm`', 'lagged': 'global, estimator `lagged`',
    'bias-micro': 'no loss; a bias moved by micro-batch counts', 'bias-global': 'no loss; a bias moved by global counts',
    'exact-and-micro': 'global, and 1% of it with micro-batch counts',
    'micro-to-exact-early': 'micro, then global from a quarter on',
    'micro-to-exact-late': 'micro, then global from three quarters on',
    'exact-to-micro-early': 'global, then micro from a quarter on',
    'exact-to-micro-late': 'global, then micro from three quarters on'}
BATCHES = {4: 'micro', 8: 'group-8', 16: 'group-16', 64: 'exact'}  # sequences counted together: arm


def controls_table(arms):
    lines = head('arm', 'mutual information', 'largest share', 'score sum', 'load violation', 'loss',
                 'loss - micro-batch counts', 'loss - global counts')
    for arm, what in CONTROLS.items():
        seeds = seeds_of(arms.get(arm, {}), arms['micro'], arms['exact'])
        if len(seeds) < 2:
            continue
        runs = arms[arm]
        against = ['' if other == arm else interval(paired({s: arms[other][s] for s in seeds}, runs, 'loss'))
                   for other in ('micro', 'exact')]
        lines.append(row(what, *(number(mean(runs, name, seeds), 3) for name in ('information', 'largest_share', 'score_sum')),
                         number(mean(runs, 'violation', seeds), 2), number(mean(runs, 'loss', seeds)), *against))
    seeds = seeds_of(arms['micro'], arms['exact'])
    return lines + ['', (f"Means over seeds {', '.join(map(str, seeds))}. Differences are of pairs, with 95% intervals; of so "
                         'many, one in twenty lies outside by chance.')]


def trend_table(arms):
    by_size = {size: arms[arm] for size, arm in BATCHES.items()}
    seeds = seeds_of(*by_size.values())
    lines = head('sequences counted together', *by_size)
    tests = []
    for name in ('loss', 'information'):
        lines.append(row(MEASURES[name], *(number(mean(runs, name, seeds)) for runs in by_size.values())))
        sign = 1 if name == 'loss' else -1
        p, correlation = trend(list(by_size), [[sign * getattr(by_size[size][seed], name) for size in by_size]
                                               for seed in seeds])
        tests.append(f"{MEASURES[name]}: mean rank correlation {sign * correlation:+.2f}, Page's test p = {p:.4f}")
    return lines + ['', '; '.join(tests) + f' ({len(seeds)} seeds).', '',
                    '![Loss and mutual information by balance batch size](evidence/trend.svg)']


@dataclasses.dataclass(frozen=True)
class Gap:
    """What a pair differs by."""
    value: float


def layout_table(arms):
    lines = head('measure', 'global - micro on 1 rank', 'on 2 ranks', '2 ranks - 1 rank, 95% interval')
    layouts = [('micro', 'exact'), ('micro-2-ranks', 'exact-2-ranks')]
    seeds = seeds_of(*(arms[arm] for layout in layouts for arm in layout))
    for name, title in MEASURES.items():
        runs = [[{seed: arms[arm][seed] for seed in seeds} for arm in layout] for layout in layouts]
        if any(mean(arm, name) is None for layout in runs for arm in layout):
            continue
        one, two = (paired(*layout, name) for layout in runs)
        gaps = [dict(enumerate(map(Gap, comparison.differences))) for comparison in (one, two)]
        lines.append(row(title, interval(one), interval(two), interval(paired(*gaps, 'value'))))
    return lines + ['', f'{len(seeds)} pairs on each layout.']


def comparable(arms, *names):
    """Whether there are at least two seeds that all these arms have."""
    return all(name in arms for name in names) and len(seeds_of(*(arms[name] for name in names))) >= 2


def balance_tables(arms):
    made = {}
    if any('-0' in arm for arm in arms):
        made['sweep'] = sweep_table(arms)
    if comparable(arms, 'micro', 'exact'):
        made['pairs'], made['main'] = pair_tables(arms, 'micro', 'exact')
    if comparable(arms, 'micro-equal', 'exact'):
        made['equal'] = pair_tables(arms, 'micro-equal', 'exact')[1]
    if comparable(arms, 'micro', 'exact-matched'):
        made['matched'] = pair_tables(arms, 'micro', 'exact-matched')[1]
    if comparable(arms, 'micro', 'exact', 'micro-2-ranks', 'exact-2-ranks'):
        made['layout'] = layout_table(arms)
    return made


def control_tables(arms):
    made = {}
    if comparable(arms, 'micro', 'exact'):
        made['controls'] = controls_table(arms)
    if comparable(arms, *BATCHES.values()):
        made['trend'] = trend_table(arms)
    return made
