"""What the studies' runs came to, read from their directories. Standard library only.

A run's last checkpoint was measured on the whole validation text: evaluation.json (docs/specialisation.md says what is
in it). How it got there is in metrics.jsonl.
"""
import dataclasses, json, pathlib, re, statistics


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run. Losses in nats per byte, domains weighing alike; measures are means over layers, as
    docs/specialisation.md defines them."""
    arm: str
    seed: int
    loss: float
    domain_losses: dict[str, float]
    information: float       # nats of mutual information between domain and expert
    largest_share: float     # the most that any expert gets of a domain's assignments
    score_sum: float         # mean probability mass of the chosen experts; uniform routing has k / N
    entropy: float           # nats, of a token's routing probabilities
    overlap: float | None    # of two domains' frequent experts; None where no domain has any
    violation: float         # most loaded expert / mean load - 1 in training, of the worst layer, mean of the last sixth
    tokens: int              # trained on
    coefficient: float | None  # of its first balance term, where it has one


def lines_of(path):
    with path.open() as file:
        return [json.loads(line) for line in file]


def mean_over(rows, name):
    """None unless it is defined in all rows."""
    values = [row[name] for row in rows]
    return None if None in values else statistics.fmean(values)


def coefficient_of(directory):
    """As run.txt has it."""
    path = directory / 'run.txt'
    settings = path.read_text() if path.exists() else ''
    found = re.search(r'model\.moe\.balance=\[[^\t]*?coefficient: ([0-9.e-]+)', settings)
    return float(found[1]) if found else None


def read_run(directory: pathlib.Path) -> Run:
    evaluation = json.loads((directory / 'evaluation.json').read_text())
    steps = [line for line in lines_of(directory / 'metrics.jsonl') if 'split' not in line and 'lm_loss' in line]
    layers = evaluation['layers']
    return Run(arm=directory.parent.name, seed=int(directory.name), loss=evaluation['mean_lm_loss'],
               domain_losses={domain['domain']: domain['lm_loss'] for domain in evaluation['domains']},
               information=mean_over(layers, 'mutual_information'), largest_share=mean_over(layers, 'largest_share'),
               score_sum=mean_over(layers, 'score_sum'), entropy=mean_over(layers, 'routing_entropy'),
               overlap=mean_over(layers, 'mean_overlap'),
               violation=mean_over(steps[-max(1, len(steps) // 6):], 'max_load_violation'),
               tokens=sum(step['tokens'] for step in steps), coefficient=coefficient_of(directory))


def read_runs(results: pathlib.Path) -> dict[str, dict[int, Run]]:
    """The finished runs of a study: by arm, then by seed, which are the names of their directories."""
    arms = {}
    for path in sorted(results.glob('*/*/evaluation.json')):
        if path.parent.name.isdigit():  # others were put aside
            run = read_run(path.parent)
            arms.setdefault(run.arm, {})[run.seed] = run
    return arms
