"""The balance study's tables: sweep, main comparison, controls, trend, second layout."""
import statistics

from paired import paired, pairs_needed, trend

MEASURES = {  # of a Run, as tables call them; those in which specialisation shows come first
    'information': 'mutual information', 'largest_share': 'largest share', 'score_sum': 'score sum',
    'overlap': 'overlap', 'entropy': 'routing entropy', 'violation': 'load violation', 'loss': 'loss'}


def row(*cells):
    return '| ' + ' | '.join(str(cell) for cell in cells) + ' |'


def head(*cells):
    return [row(*cells), row(*['---'] * len(cells))]


def mean(runs, name, seeds=None):
    return statistics.fmean(getattr(runs[seed], name) for seed in seeds or sorted(runs))


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
    seeds = sorted(first.keys() & second.keys())
    each = head('seed', *(f'{MEASURES[name]}, micro / global' for name in ('information', 'largest_share', 'score_sum')),
                'loss, micro', 'loss, global', 'difference')
    for seed in seeds:
        a, b = first[seed], second[seed]
        each.append(row(seed, *(f'{getattr(a, name):.3f} / {getattr(b, name):.3f}'
                                for name in ('information', 'largest_share', 'score_sum')),
                        f'{a.loss:.4f}', f'{b.loss:.4f}', f'{b.loss - a.loss:+.4f}'))
    together = head('measure', 'micro', 'global', 'global - micro, 95% interval', 'deviation', 'global higher in', 'sign test p')
    for name, title in MEASURES.items():
        comparison = paired(first, second, name)
        together.append(row(title, f'{mean(first, name, seeds):.4f}', f'{mean(second, name, seeds):.4f}',
                            interval(comparison), f'{comparison.deviation:.4f}',
                            f'{len(seeds) - comparison.below} of {len(seeds)}', f'{comparison.sign_p:.3f}'))
    loss = paired(first, second, 'loss')
    together += ['', (f'To see a difference in loss as large as this one with a power of 80% at the 5% level takes '
                      f'{pairs_needed(loss)} pairs with such a spread.')]
    return each, together


CONTROLS = {  # arm: what it is
    'micro': 'micro-batch counts, their best coefficient', 'micro-equal': 'micro-batch counts',
    'exact': 'global counts', 'exact-matched': 'global counts, at the load violation of the first row',
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


def controls_table(arms):
    seeds = sorted(set.intersection(*(set(runs) for arm, runs in arms.items() if arm in CONTROLS)))
    lines = head('arm', 'mutual information', 'largest share', 'score sum', 'load violation', 'loss',
                 'loss - micro-batch counts', 'loss - global counts')
    reference = 'micro-equal' if 'micro-equal' in arms else 'micro'
    for arm, what in CONTROLS.items():
        if arm not in arms:
            continue
        runs = arms[arm]
        against = ['' if other == arm else interval(paired({s: arms[other][s] for s in seeds}, runs, 'loss'))
                   for other in (reference, 'exact')]
        lines.append(row(what, *(f'{mean(runs, name, seeds):.3f}' for name in ('information', 'largest_share', 'score_sum')),
                         f"{mean(runs, 'violation', seeds):.2f}", f"{mean(runs, 'loss', seeds):.4f}", *against))
    return lines + ['', f"Means over seeds {', '.join(map(str, seeds))}; differences are of pairs, with 95% intervals."]


def trend_table(arms):
    by_size = {4: arms.get('micro-equal', arms['micro']), 8: arms['group-8'], 16: arms['group-16'], 64: arms['exact']}
    seeds = sorted(set.intersection(*(set(runs) for runs in by_size.values())))
    lines = head('sequences counted together', *by_size)
    tests = []
    for name in ('loss', 'information'):
        lines.append(row(MEASURES[name], *(f'{mean(runs, name, seeds):.4f}' for runs in by_size.values())))
        sign = 1 if name == 'loss' else -1
        p, correlation = trend(list(by_size), [[sign * getattr(by_size[size][seed], name) for size in by_size]
                                               for seed in seeds])
        tests.append(f"{MEASURES[name]}: mean rank correlation {sign * correlation:+.2f}, Page's test p = {p:.4f}")
    return lines + ['', '; '.join(tests) + f' ({len(seeds)} seeds).']


def layout_table(arms):
    lines = head('measure', 'global - micro on 1 rank', 'on 2 ranks', '2 ranks - 1 rank, 95% interval')
    for name, title in MEASURES.items():
        one, two = paired(arms['micro'], arms['exact'], name), paired(arms['micro-2-ranks'], arms['exact-2-ranks'], name)
        gaps = [{seed: Gap(value) for seed, value in enumerate(comparison.differences)} for comparison in (one, two)]
        lines.append(row(title, interval(one), interval(two), interval(paired(*gaps, 'value'))))
    return lines


class Gap:
    def __init__(self, value):
        self.value = value


def tables(arms):
    made = {'sweep': sweep_table(arms)}
    if {'micro', 'exact'} <= arms.keys():
        made['pairs'], made['main'] = pair_tables(arms, 'micro', 'exact')
        if 'micro-equal' in arms:
            made['equal'] = pair_tables(arms, 'micro-equal', 'exact')[1]
    if {'micro', 'exact', 'shuffle'} <= arms.keys():
        made['controls'] = controls_table(arms)
    if {'micro', 'exact', 'group-8', 'group-16'} <= arms.keys():
        made['trend'] = trend_table(arms)
    if {'micro-2-ranks', 'exact-2-ranks'} <= arms.keys():
        made['layout'] = layout_table(arms)
    return made
