"""Tables of the studies of the structure of experts and of document-level pools."""
import dataclasses, json, pathlib, statistics

from balance_tables import comparable, head, interval, mean, number, row
from paired import paired

STRUCTURES = {
    'coarse-top-1': '8 experts, 1 per token (Switch)', 'coarse-top-2': '16 experts, 2 per token (GShard)',
    'fine': '68 experts, 8 per token',
    'fine-2-shared': '66 experts, 6 per token, 2 shared (DeepSeekMoE)',
    'fine-by-groups': 'the same, a second balance term over 6 groups of experts'}


def structure_tables(arms):
    reference = 'coarse-top-2'
    lines = head('model', 'loss', 'loss - GShard, 95% interval', 'mutual information', 'load violation')
    for arm, what in STRUCTURES.items():
        if not comparable(arms, arm, reference):
            continue
        against = '' if arm == reference else interval(paired(arms[reference], arms[arm], 'loss'))
        lines.append(row(what, number(mean(arms[arm], 'loss')), against, number(mean(arms[arm], 'information'), 3),
                         number(mean(arms[arm], 'violation'), 2)))
    if len(lines) == 2:
        return {}
    return {'experts': lines + ['', f'Means over {len(arms[reference])} seeds; differences are of pairs.']}


@dataclasses.dataclass(frozen=True)
class Loss:
    loss: float


class Rise:
    """How much a domain's loss rises when only some experts are kept, mean over domains."""

    def __init__(self, run, directory, experts):
        subset = {domain: json.loads((directory / f'{domain}-{experts}.json').read_text())['mean_lm_loss']
                  for domain in run.domain_losses}
        self.by_domain = {domain: subset[domain] - run.domain_losses[domain] for domain in subset}
        self.value = statistics.fmean(self.by_domain.values())


def rises(arms, results: pathlib.Path, experts):
    """By arm and seed."""
    return {arm: {seed: Rise(run, results / arm / str(seed) / 'subsets', experts) for seed, run in runs.items()}
            for arm, runs in arms.items()}


def pool_tables(arms, results: pathlib.Path):
    if not comparable(arms, 'standard', 'pools'):
        return {}
    standard, pools = arms['standard'], arms['pools']
    full = paired(standard, pools, 'loss')
    causal = {seed: Loss(json.loads((results / 'pools' / str(seed) / 'without_pools.json').read_text())['mean_lm_loss'])
              for seed in pools}
    full_causal = paired(standard, causal, 'loss')
    lines = head('model', 'standard', 'pools', 'pools - standard, 95% interval')
    lines.append(row('all 32 experts, evaluated with pools: loss', number(mean(standard, 'loss')),
                     number(mean(pools, 'loss')), interval(full)))
    lines.append(row('all 32 experts, evaluated without: loss', number(mean(standard, 'loss')),
                     number(mean(causal, 'loss')), interval(full_causal)))
    by_domain = head('domain', *(f'{arm}, {count} of 32' for count in (4, 8, 16) for arm in ('standard', 'pools')))
    cells = {domain: [] for domain in next(iter(standard.values())).domain_losses}
    for count in (16, 8, 4):
        of = rises(arms, results, count)
        typical = {arm: statistics.fmean(rise.value for rise in of[arm].values()) for arm in ('standard', 'pools')}
        lines.append(row(f'{count} experts for each domain: rise of its loss', *(f'{typical[arm]:+.4f}' for arm in typical),
                         interval(paired(of['standard'], of['pools'], 'value'))))
    for count in (4, 8, 16):
        of = rises(arms, results, count)
        for arm in ('standard', 'pools'):
            for domain in cells:
                cells[domain].append(f"{statistics.fmean(rise.by_domain[domain] for rise in of[arm].values()):+.3f}")
    by_domain += [row(domain, *values) for domain, values in cells.items()]
    with_pools, without = (one.mean / mean(standard, 'loss') for one in (full, full_causal))
    lines += ['', (f'The loss with all experts differs by {with_pools:+.2%} with pools and by {without:+.2%} without; means '
                   f'over {len(full.differences)} seeds. Rises are over the loss of the first row.')]
    return {'pools': lines, 'pools-by-domain': by_domain}
