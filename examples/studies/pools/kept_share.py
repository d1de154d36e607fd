"""Prints the share of the router's probability that the kept experts had among all, mean over layers.

    python3 kept_share.py EXTRACTED.json
"""
import json, statistics, sys

with open(sys.argv[1]) as file:
    layers = json.load(file)['layers']
print(statistics.fmean(sum(layer['scores'][expert] for expert in layer['experts']) for layer in layers))
