"""The balance study's tables: sweep, main comparison, controls, trend, second layout."""
import dataclasses, re, statistics

from paired import paired, pairs_needed, trend

SPECIALISATION = {  # of a Run, as tables call them: the measures that the studies are about
    'information': 'mutual information', 'largest_share': 'largest share', 'score_sum': 'score sum'}
DECIDING = SPECIALISATION | {'loss': 'loss'}
MEASURES = DECIDING | {'overlap': 'overlap', 'entropy': 'routing entropy', 'violation': 'load violation'}
SOUGHT = (0.006, 0.01, 0.016)  # differences in loss, nats per byte, of which the power is told


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
    lines = head('coefficient', 'loss, micro', 'loss, global', 'mutual information, micro', 'mutual information, global',
                 'load violation, micro', 'load violation, global')
    for coefficient in sorted({arm.split('-')[1] for arm in swept_arms(arms)}, key=float):
        pair = [arms.get(f'{kind}-{coefficient}', {}) for kind in ('micro', 'exact')]
        lines.append(row(coefficient, *(number(mean(runs, name), digits) if runs else '–'
                                        for name, digits in (('loss', 4), ('information', 4), ('violation', 2))
                                        for runs in pair)))
    return lines


def swept_arms(arms):
    return [arm for arm in arms if re.fullmatch(r'(micro|exact)-[0-9.]+', arm)]


def pair_tables(arms, micro, exact):
    """Each seed's pair, and what the pairs say together."""
    first, second = arms[micro], arms[exact]
    seeds = seeds_of(first, second)
    each = head('seed', *(f'{title}, micro / global' for title in SPECIALISATION.values()), 'loss, micro', 'loss, global',
                'difference')
    for seed in seeds:
        a, b = first[seed], second[seed]
        each.append(row(seed, *(f'{getattr(a, name):.3f} / {getattr(b, name):.3f}' for name in SPECIALISATION),
                        f'{a.loss:.4f}', f'{b.loss:.4f}', f'{b.loss - a.loss:+.4f}'))
    coefficients = [f', coefficient {runs[seeds[0]].coefficient:g}' if runs[seeds[0]].coefficient else ''
                    for runs in (first, second)]
    together = head('measure', f'micro{coefficients[0]}', f'global{coefficients[1]}', 'global - micro, 95% interval',
                    'standard deviation', 'global higher in', 'sign test p')
    for name, title in MEASURES.items():
        means = [mean(runs, name, seeds) for runs in (first, second)]
        if None in means:
            together.append(row(title, *map(number, means), 'not defined in every pair', '', '', ''))
            continue
        comparison = paired(first, second, name)
        together.append(row(title, *map(number, means), interval(comparison), f'{comparison.deviation:.4f}',
                            f'{comparison.above} of {len(seeds)}',
                            f'{comparison.sign_p:.3f}' if name in DECIDING else ''))
    return each, together


def power_of(micro, exact):
    """What it takes to see a difference in loss, in a sentence."""
    deviation = paired(micro, exact, 'loss').deviation
    if deviation == 0:
        return ''
    takes = ', '.join(f'{pairs_needed(sought, deviation)} for {sought}' for sought in SOUGHT)
    return (f'With a standard deviation of {deviation:.4f} between pairs, a power of 80% in a test at the 5% level needs so '
            f'many pairs for a difference in loss of so many nats: {takes}.')


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


def controls_tables(arms):
    """Means of each arm, and its pairs with both main arms."""
    values = head('arm', *(MEASURES[name] for name in (*SPECIALISATION, 'violation', 'loss')), 'seeds')
    pairs = head('arm', *(f'{MEASURES[name]} - {arm}' for name in ('information', 'loss') for arm in ('micro', 'global')),
                 'mutual information between both in')
    for arm, what in CONTROLS.items():
        seeds = seeds_of(arms.get(arm, {}), arms['micro'], arms['exact'])
        if len(seeds) < 2:
            continue
        runs = arms[arm]
        values.append(row(what, *(number(mean(runs, name, seeds), 3) for name in SPECIALISATION),
                          number(mean(runs, 'violation', seeds), 2), number(mean(runs, 'loss', seeds)),
                          ', '.join(map(str, seeds))))
        against = ['' if other == arm else interval(paired({s: arms[other][s] for s in seeds}, runs, name), digits)
                   for name, digits in (('information', 3), ('loss', 4)) for other in ('micro', 'exact')]
        between = sum(arms['micro'][s].information < runs[s].information < arms['exact'][s].information for s in seeds)
        pairs.append(row(what, *against, '' if arm in ('micro', 'exact') else f'{between} of {len(seeds)}'))
    pairs += ['', ('Differences of pairs, with 95% intervals that are not corrected for their number: of some sixty that '
                   'share two references, about three would exclude zero even if nothing differed.')]
    return {'controls': values, 'controls-pairs': pairs}


def trend_table(arms):
    by_size = {size: arms[arm] for size, arm in BATCHES.items()}
    seeds = seeds_of(*by_size.values())
    lines = head('sequences counted together', *by_size)
    tests = []
    for name in ('information', 'loss'):
        lines.append(row(MEASURES[name], *(number(mean(runs, name, seeds)) for runs in by_size.values())))
        found = trend(list(by_size), [[getattr(by_size[size][seed], name) for size in by_size] for seed in seeds])
        tests.append(f"{MEASURES[name]}: mean rank correlation {found.correlation:+.2f}, Page's exact test one-sided for a "
                     f'rise p = {found.rise_p:.2g}, for a fall p = {found.fall_p:.2g}')
    return lines + ['', '; '.join(tests) + f' ({len(seeds)} seeds).', '',
                    '![Loss and mutual information by balance batch size](evidence/trend.svg)']


@dataclasses.dataclass(frozen=True)
class Gap:
    """What a pair differs by."""
    value: float


def layout_tables(arms):
    """What the arms differ by on both layouts, and what the layouts differ by within an arm."""
    layouts = [('micro', 'exact'), ('micro-2-ranks', 'exact-2-ranks')]
    seeds = seeds_of(*(arms[arm] for layout in layouts for arm in layout))
    gaps = head('measure', 'global - micro on 1 rank', 'on 2 ranks', 'global higher on 1 rank', 'on 2 ranks',
                '2 ranks - 1 rank of the difference, 95% interval')
    within = head('measure', 'micro: 2 ranks - 1 rank, 95% interval', 'global: 2 ranks - 1 rank',
                  'standard deviation between layouts, micro, global', 'between seeds, micro, global')
    for name, title in MEASURES.items():
        runs = {arm: {seed: arms[arm][seed] for seed in seeds} for layout in layouts for arm in layout}
        if any(mean(arm, name) is None for arm in runs.values()):
            continue
        one, two = (paired(runs[micro], runs[exact], name) for micro, exact in layouts)
        change = paired(*(dict(enumerate(map(Gap, comparison.differences))) for comparison in (one, two)), 'value')
        gaps.append(row(title, interval(one), interval(two), *(f'{of.above} of {len(seeds)}' for of in (one, two)),
                        interval(change)))
        moved = [paired(runs[arm], runs[f'{arm}-2-ranks'], name) for arm in ('micro', 'exact')]
        between = [statistics.stdev(getattr(run, name) for run in runs[arm].values()) for arm in ('micro', 'exact')]
        within.append(row(title, *map(interval, moved), ', '.join(f'{of.deviation:.4f}' for of in moved),
                          ', '.join(f'{deviation:.4f}' for deviation in between)))
    return {'layout': gaps + ['', f'{len(seeds)} pairs on each layout.'], 'layout-within': within}


def comparable(arms, *names):
    """Whether there are at least two seeds that all these arms have."""
    return all(name in arms for name in names) and len(seeds_of(*(arms[name] for name in names))) >= 2


def balance_tables(arms):
    made = {}
    if swept_arms(arms):
        made['sweep'] = sweep_table(arms)
    if comparable(arms, 'micro', 'exact'):
        made['pairs'], made['main'] = pair_tables(arms, 'micro', 'exact')
        made['main'] += ['', power_of(arms['micro'], arms['exact'])]
    if comparable(arms, 'micro-equal', 'exact'):
        made['equal'] = pair_tables(arms, 'micro-equal', 'exact')[1]
    if comparable(arms, 'micro', 'exact-matched'):
        made['matched'] = pair_tables(arms, 'micro', 'exact-matched')[1]
    if comparable(arms, 'micro', 'exact', 'micro-2-ranks', 'exact-2-ranks'):
        made |= layout_tables(arms)
    return made


def control_tables(arms):
    made = {}
    if comparable(arms, 'micro', 'exact'):
        made |= controls_tables(arms)
    if comparable(arms, *BATCHES.values()):
        made['trend'] = trend_table(arms)
    return made
