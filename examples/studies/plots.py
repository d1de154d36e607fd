"""Plots of docs/evidence.md, as SVG files that are the same bytes for the same runs."""
import json, pathlib

import h5py
import matplotlib
import numpy
matplotlib.use('svg')
matplotlib.rcParams.update({'svg.hashsalt': 'conclave', 'font.size': 9, 'axes.spines.top': False,
                            'axes.spines.right': False, 'figure.dpi': 100})
import matplotlib.pyplot as plot

from balance_tables import BATCHES, comparable, mean, seeds_of
from modular_tables import POOLS, read_pools
from paired import paired

COLOURS = {'micro': '#c4622d', 'exact': '#2d6fc4'}
NAMES = {'micro': 'micro-batch', 'exact': 'global', 'micro-equal': 'micro-batch, coefficient of global'}


def save(figure, path):
    figure.tight_layout()
    figure.savefig(path, metadata={'Date': None, 'Creator': None})
    plot.close(figure)


def draw_pairs(arms, path):
    """Each seed's pair for three measures, and the differences of the loss with their interval."""
    figure, axes = plot.subplots(1, 4, figsize=(9, 2.6))
    for axis, name, title in zip(axes, ('information', 'largest_share', 'score_sum'),
                                 ('mutual information, nats', 'largest share', 'score sum')):
        for seed in sorted(arms['micro'].keys() & arms['exact'].keys()):
            values = [getattr(arms[arm][seed], name) for arm in COLOURS]
            axis.plot([0, 1], values, color='#999', linewidth=0.8, zorder=1)
            axis.scatter([0, 1], values, color=list(COLOURS.values()), s=14, zorder=2)
        axis.set_xticks([0, 1], [NAMES[arm] for arm in COLOURS])
        axis.set_xlim(-0.4, 1.4)
        axis.set_ylim(bottom=0)
        axis.set_title(title, fontsize=9)
    loss = paired(arms['micro'], arms['exact'], 'loss')
    axes[3].axvline(0, color='#999', linewidth=0.8)
    axes[3].scatter(loss.differences, range(1, len(loss.differences) + 1), color=COLOURS['exact'], s=14)
    axes[3].errorbar(loss.mean, 0, xerr=[[loss.mean - loss.low], [loss.high - loss.mean]], color='black', fmt='o',
                     markersize=4, capsize=3)
    axes[3].set_yticks([0, len(loss.differences)], ['mean', 'seeds'])
    axes[3].set_title('loss, global - micro, nats', fontsize=9)
    save(figure, path)


def draw_over_time(arms, results, path):
    """Mutual information at the evaluations on the way, mean over layers; every seed a line."""
    figure, axis = plot.subplots(figsize=(4.5, 2.8))
    equal = {'micro-equal': '#e0b090'} if 'micro-equal' in arms else {}
    for arm, colour in (COLOURS | equal).items():
        for index, seed in enumerate(sorted(arms[arm])):
            with h5py.File(results / arm / str(seed) / 'experts.h5') as file:
                steps, counts = file['evaluation/step'][:], file['evaluation/counts'][:].astype(float)
            shares = counts / counts.sum(-1, keepdims=True)  # [evaluations, domains, layers, experts]
            typical = shares.mean(1, keepdims=True)
            terms = shares * numpy.log(numpy.where(shares > 0, shares / numpy.maximum(typical, 1e-300), 1))
            axis.plot(steps, terms.sum(-1).mean((1, 2)), color=colour, linewidth=0.8, marker='o', markersize=3,
                      label=NAMES[arm] if index == 0 else None)
    axis.set_ylim(bottom=0)
    axis.set_xlabel('step')
    axis.set_title('mutual information, nats', fontsize=9)
    axis.legend(frameon=False)
    save(figure, path)


def draw_trend(arms, path):
    by_size = {size: arms[arm] for size, arm in BATCHES.items()}
    seeds = seeds_of(*by_size.values())
    figure, axes = plot.subplots(1, 2, figsize=(6, 2.6))
    for axis, name, title in zip(axes, ('loss', 'information'), ('loss, nats', 'mutual information, nats')):
        for seed in seeds:
            values = [getattr(runs[seed], name) for runs in by_size.values()]
            axis.plot(list(by_size), values, color='#999', linewidth=0.8)
        axis.plot(list(by_size), [mean(runs, name, seeds) for runs in by_size.values()], color=COLOURS['exact'],
                  marker='o', markersize=4)
        axis.set_xscale('log', base=2)
        axis.set_xticks(list(by_size), list(map(str, by_size)))
        axis.set_xlabel('sequences counted together')
        axis.set_title(title, fontsize=9)
    save(figure, path)


def draw_heat_maps(arms, results, path):
    """Which share of a domain's assignments each expert gets, for the first seed of both arms, all layers."""
    seed = min(arms['micro'].keys() & arms['exact'].keys())
    shares = {arm: shares_of(results / arm / str(seed)) for arm in COLOURS}
    domains, layers = shares['micro'][0], len(shares['micro'][1])
    largest = max(max(map(max, layer)) for _, table in shares.values() for layer in table)
    figure, axes = plot.subplots(layers, 2, figsize=(9, 1.5 * layers + 0.6), squeeze=False)
    for column, (arm, (_, table)) in enumerate(shares.items()):
        for layer, rows in enumerate(table):
            # Experts in the order of the domain that uses them most, so that a diagonal is specialisation.
            order = sorted(range(len(rows[0])), key=lambda e: (max(range(len(rows)), key=lambda d: rows[d][e]), e))
            axis = axes[layer][column]
            image = axis.imshow([[line[e] for e in order] for line in rows], aspect='auto', vmin=0, vmax=largest,
                                cmap='viridis')
            axis.set_yticks(range(len(domains)), domains if column == 0 else [''] * len(domains), fontsize=6)
            axis.set_xticks([])
            axis.set_title(f'{NAMES[arm]}, layer {layer}', fontsize=8)
    figure.colorbar(image, ax=axes, fraction=0.02, label="share of the domain's assignments")
    figure.savefig(path, metadata={'Date': None, 'Creator': None})
    plot.close(figure)


def draw_subsets(models, path):
    """The loss by how many experts are kept for each domain, mean over domains; every seed a line; bars: weights scaled."""
    figure, axis = plot.subplots(figsize=(4.5, 2.8))
    for (arm, runs), colour in zip(models.items(), ('#c4622d', '#2d6fc4', '#5aa469')):
        for index, losses in enumerate(runs.values()):
            axis.plot([4, 8, 16, 32], [losses.loss_4, losses.loss_8, losses.loss_16, losses.without], color=colour,
                      linewidth=0.8, marker='o', markersize=3, label=POOLS.get(arm, arm) if index == 0 else None)
            axis.plot([8], [getattr(losses, 'loss_8-scaled')], color=colour, marker='_', markersize=8)
    axis.set_xscale('log', base=2)
    axis.set_xticks([4, 8, 16, 32], ['4', '8', '16', '32'])
    axis.set_xlabel('experts kept of 32; bars: weights scaled')
    axis.set_title('loss of each domain with its experts, nats', fontsize=9)
    axis.legend(frameon=False)
    save(figure, path)


def shares_of(directory):
    """Domains' names and q(expert | domain) [layers][domains][experts]."""
    evaluation = json.loads((directory / 'evaluation.json').read_text())
    domains = evaluation['domains']
    return [one['domain'] for one in domains], [
        [[count / sum(one['counts'][layer]) for count in one['counts'][layer]] for one in domains]
        for layer in range(len(evaluation['layers']))]


def draw(studies, runs: pathlib.Path, plots: pathlib.Path):
    arms = studies['balance']
    if comparable(arms, 'micro', 'exact'):
        draw_pairs(arms, plots / 'pairs.svg')
        draw_over_time(arms, runs / 'balance', plots / 'over_time.svg')
        draw_heat_maps(arms, runs / 'balance', plots / 'shares.svg')
    if comparable(studies['controls'], *BATCHES.values()):
        draw_trend(studies['controls'], plots / 'trend.svg')
    models = read_pools(studies['pools'], runs / 'pools')
    if models:
        draw_subsets(models, plots / 'subsets.svg')
