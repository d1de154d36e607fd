"""Tables and plots of docs/evidence.md from the runs below runs/studies.

Each table stands in the document between <!-- table NAME --> and <!-- end -->; what is between is written anew. Studies
that have not been run leave theirs as they are.
"""
import argparse, dataclasses, json, pathlib, re, sys

import balance_tables, modular_tables, plots
from results import read_runs


def tables_of(studies):
    """All tables that the finished runs allow, by name, as lines of Markdown."""
    tables = {}
    if 'balance' in studies:
        tables |= balance_tables.tables(studies['balance'])
    if 'experts' in studies:
        tables |= modular_tables.structure_tables(studies['experts'])
    if 'pools' in studies:
        tables |= modular_tables.pool_tables(studies['pools'], pathlib.Path('runs/studies/pools'))
    return tables


def insert(document, tables):
    """The document with each table in its place; a table without a place is a mistake."""
    for name, lines in tables.items():
        place = re.compile(rf'(<!-- table {re.escape(name)} -->\n).*?(<!-- end -->)', re.S)
        if not place.search(document):
            sys.exit(f'evidence.py: the document has no <!-- table {name} --> ... <!-- end -->')
        document = place.sub(lambda found: found[1] + '\n'.join(lines) + '\n' + found[2], document)
    return document


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=pathlib.Path, default=pathlib.Path('runs/studies'))
    parser.add_argument('--document', type=pathlib.Path, default=pathlib.Path('docs/evidence.md'))
    parser.add_argument('--plots', type=pathlib.Path, default=pathlib.Path('docs/evidence'))
    arguments = parser.parse_args()
    studies = {path.name: read_runs(path) for path in sorted(arguments.runs.iterdir()) if path.is_dir()}
    arguments.document.write_text(insert(arguments.document.read_text(), tables_of(studies)))
    arguments.plots.mkdir(exist_ok=True)
    everything = [dict(study=study) | dataclasses.asdict(run)
                  for study, arms in studies.items() for runs in arms.values() for run in runs.values()]
    (arguments.plots / 'runs.json').write_text('[\n' + ',\n'.join(map(json.dumps, everything)) + '\n]\n')
    plots.draw(studies, arguments.runs, arguments.plots)
    for study, arms in studies.items():
        print(f'{study}: {sum(map(len, arms.values()))} runs in {len(arms)} arms')


if __name__ == '__main__':
    main()
