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


POOLS = {'pools': 'pools of 3 to 33', 'pools-wide': 'of 16 to 33'}  # arm: what it is


def pool_tables(arms, results: pathlib.Path):
    names = [arm for arm in POOLS if comparable(arms, 'standard', arm)]
    if not names:
        return {}
    arms = {arm: arms[arm] for arm in ('standard', *names)}
    standard = arms['standard']
    lines = head('loss, and its rise', 'standard', *(POOLS[arm] for arm in names),
                 *(f'{POOLS[arm]} - standard, 95% interval' for arm in names))

    def add(what, runs, name, form):
        """runs: by arm, then by seed; the row of one measure."""
        lines.append(row(what, *(format(mean(runs[arm], name), form) for arm in arms),
                         *(interval(paired(runs['standard'], runs[arm], name)) for arm in names)))
        return [paired(runs['standard'], runs[arm], name).mean / mean(standard, 'loss') for arm in names]

    def without_pools(arm, seed):
        return Loss(json.loads((results / arm / str(seed) / 'without_pools.json').read_text())['mean_lm_loss'])

    with_pools = add('all 32 experts, evaluated with pools', arms, 'loss', '.4f')
    causal = {arm: {seed: without_pools(arm, seed) for seed in arms[arm]} for arm in names}
    without = add('all 32 experts, evaluated without', causal | {'standard': standard}, 'loss', '.4f')
    for count in (16, 8, 4):
        add(f'{count} experts for each domain: rise', rises(arms, results, count), 'value', '+.4f')
    by_domain = head('domain', 'standard', *(POOLS[arm] for arm in names))
    quarter = rises(arms, results, 8)
    for domain in next(iter(standard.values())).domain_losses:
        by_domain.append(row(domain, *(f'{statistics.fmean(rise.by_domain[domain] for rise in quarter[arm].values()):+.3f}'
                                       for arm in arms)))
    said = '; '.join(f'{POOLS[arm]}: {a:+.2%} with pools, {b:+.2%} without'
                     for arm, a, b in zip(names, with_pools, without))
    lines += ['', f'The loss with all experts against the standard model: {said}. Means over {len(standard)} seeds. Rises',
              'are over the loss of the first row.', '',
              '![Loss by how many experts are kept](evidence/subsets.svg)']
    return {'pools': lines, 'pools-by-domain': by_domain}
