"""Tables of the studies of the structure of experts and of document-level pools."""
import json, pathlib, statistics, types

from balance_tables import comparable, head, interval, mean, number, row, seeds_of
from paired import paired

STRUCTURES = {
    'coarse-top-1': '8 experts, 1 per token (Switch)', 'coarse-top-2': '16 experts, 2 per token (GShard)',
    'fine': '68 experts, 8 per token',
    'fine-2-shared': '66 experts, 6 per token, 2 shared (DeepSeekMoE)',
    'fine-by-groups': 'the same, a second balance term over 6 groups of experts'}
CONTRASTS = {  # what is asked: which arm less which
    'two experts per token of half the size, not one': ('coarse-top-2', 'coarse-top-1'),
    'fine-grained experts': ('fine', 'coarse-top-2'),
    'two of them shared': ('fine-2-shared', 'fine'),
    'fine-grained with two shared, DeepSeekMoE against GShard': ('fine-2-shared', 'coarse-top-2'),
    'the term over groups': ('fine-by-groups', 'fine-2-shared')}
GROUPS = 6  # of fine-by-groups


def group_violation(directory, groups):
    """Most loaded group of neighbouring experts over the mean group, less 1: of the assignments of all validation text,
    domains weighing alike, mean over layers."""
    domains = [domain['counts'] for domain in json.loads((directory / 'evaluation.json').read_text())['domains']]
    violations = []
    for layer in zip(*domains):
        shares = [sum(counts[expert] / sum(counts) for counts in layer) for expert in range(len(layer[0]))]
        size = len(shares) // groups
        loads = [sum(shares[group * size:(group + 1) * size]) for group in range(groups)]
        violations.append(max(loads) / statistics.fmean(loads) - 1)
    return statistics.fmean(violations)


def structure_tables(arms, results: pathlib.Path):
    lines = head('model', 'loss', 'load violation', f'of {GROUPS} groups, validation text', 'mutual information', 'seeds')
    for arm, what in STRUCTURES.items():
        if arm not in arms:
            continue
        runs = arms[arm]
        by_group = '' if not arm.startswith('fine-') else number(
            statistics.fmean(group_violation(results / arm / str(seed), GROUPS) for seed in runs), 2)
        lines.append(row(what, number(mean(runs, 'loss')), number(mean(runs, 'violation'), 2), by_group,
                         number(mean(runs, 'information'), 3), ', '.join(map(str, sorted(runs)))))
    contrasts = head('what changes', 'loss: difference, 95% interval', 'lower in')
    for what, (arm, reference) in CONTRASTS.items():
        if comparable(arms, arm, reference):
            difference = paired(arms[reference], arms[arm], 'loss')
            lower = sum(one < 0 for one in difference.differences)
            contrasts.append(row(what, interval(difference), f'{lower} of {len(difference.differences)}'))
    return {'experts': lines, 'experts-contrasts': contrasts} if len(contrasts) > 2 else {}


POOLS = {'pools': 'pools of 3 to 33', 'pools-wide': 'wide pools'}  # arm: what it is
KEPT = {'16': '16 experts for each domain', '8': '8 experts', '8-scaled': '8 experts, their weights scaled',
        '4': '4 experts'}  # as files are named: what it is


def read_losses(directory, run):
    """Of one model, in nats, mean over domains: without and with_pools of all experts, and by how many are kept loss_8 and
    so on, and rise_8 over the loss without pools, of which extracts have none; by_domain[count][domain]."""
    def loss(path):
        return json.loads(path.read_text())['mean_lm_loss']

    without = directory / 'without_pools.json'
    values = types.SimpleNamespace(with_pools=run.loss, without=loss(without) if without.exists() else run.loss,
                                   by_domain={})
    for count in KEPT:
        of = {domain: loss(directory / 'subsets' / f'{domain}-{count}.json') for domain in run.domain_losses}
        values.by_domain[count] = of
        setattr(values, f'loss_{count}', statistics.fmean(of.values()))
        setattr(values, f'rise_{count}', statistics.fmean(of.values()) - values.without)
    return values


def read_pools(arms, results: pathlib.Path):
    """Losses by arm and seed: of the standard model and of those with pools, of the seeds that they have in common."""
    names = [arm for arm in POOLS if comparable(arms, 'standard', arm)]
    if not names:
        return {}
    seeds = seeds_of(*(arms[arm] for arm in ('standard', *names)))
    return {arm: {seed: read_losses(results / arm / str(seed), arms[arm][seed]) for seed in seeds}
            for arm in ('standard', *names)}


def pool_tables(arms, results: pathlib.Path):
    models = read_pools(arms, results)
    if not models:
        return {}
    others = [arm for arm in models if arm != 'standard']
    titles = ['standard', *(POOLS[arm] for arm in others), *(f'{POOLS[arm]} - standard, 95% interval' for arm in others)]

    def add(lines, what, name, sign=''):
        lines.append(row(what, *(f'{mean(runs, name):{sign}.4f}' for runs in models.values()),
                         *(interval(paired(models['standard'], models[arm], name)) for arm in others)))

    losses, rises = head('loss', *titles), head('rise of the loss', *titles)
    add(losses, 'all 32 experts, without pools', 'without')
    add(losses, 'all 32 experts, with pools', 'with_pools')
    for count, what in KEPT.items():
        add(losses, what, f'loss_{count}')
        add(rises, what, f'rise_{count}', '+')
    standard = mean(models['standard'], 'without')
    said = '; '.join(f"{POOLS[arm]} {mean(models[arm], 'without') / standard - 1:+.2%} without pools, "
                     f"{mean(models[arm], 'with_pools') / standard - 1:+.2%} with" for arm in others)
    losses += ['', f"Means over {len(models['standard'])} seeds. All 32 experts against the standard model: {said}.",
               '', '![Loss by how many experts are kept](evidence/subsets.svg)']
    by_domain = head('domain', *titles[:len(models)])
    for domain in next(iter(arms['standard'].values())).domain_losses:
        by_domain.append(row(domain, *(
            f'{statistics.fmean(one.by_domain["8-scaled"][domain] for one in runs.values()):.4f}'
            for runs in models.values())))
    return {'pools': losses, 'pools-rises': rises, 'pools-by-domain': by_domain}
