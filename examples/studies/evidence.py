"""Tables and plots of docs/evidence.md from the runs below runs/studies.

Each table stands in the document between <!-- table NAME --> and <!-- end -->; what is between is written anew. Studies
that have not been run leave theirs as they are.
"""
import argparse, dataclasses, json, pathlib, re, sys

import balance_tables, modular_tables
from results import read_runs


STUDIES = ('balance', 'controls', 'experts', 'pools')


def tables_of(studies, runs):
    """All tables that the finished runs allow, by name, as lines of Markdown."""
    return (balance_tables.balance_tables(studies['balance']) | balance_tables.control_tables(studies['controls']) |
            modular_tables.structure_tables(studies['experts'], runs / 'experts') |
            modular_tables.pool_tables(studies['pools'], runs / 'pools'))


def insert(document, tables):
    """The document with each table in its place; a table without a place is a mistake."""
    for name, lines in tables.items():
        place = re.compile(rf'(<!-- table {re.escape(name)} -->\n).*?(<!-- end -->)', re.S)
        if not place.search(document):
            sys.exit(f'evidence.py: the document has no <!-- table {name} --> ... <!-- end -->')
        document = place.sub(lambda found: found[1] + '\n'.join(lines) + '\n' + found[2], document)
    return document


def list_of(studies, models, before):
    """The figures of all runs as JSON, a line each; models: what read_pools gives; of studies without runs those from
    before."""
    lines = [dict(study=study) | dataclasses.asdict(run)
             for study, arms in studies.items() for runs in arms.values() for run in runs.values()]
    for line in lines:
        if line['study'] == 'pools' and line['seed'] in models.get(line['arm'], {}):
            line['extracts'] = vars(models[line['arm']][line['seed']])
    lines += [line for line in before if not studies.get(line['study'])]
    return '[\n' + ',\n'.join(map(json.dumps, lines)) + '\n]\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=pathlib.Path, default=pathlib.Path('runs/studies'))
    parser.add_argument('--document', type=pathlib.Path, default=pathlib.Path('docs/evidence.md'))
    parser.add_argument('--plots', type=pathlib.Path, default=pathlib.Path('docs/evidence'))
    arguments = parser.parse_args()
    import plots  # here, since tables need no matplotlib, and before anything is written
    studies = {study: read_runs(arguments.runs / study) for study in STUDIES}
    arguments.document.write_text(insert(arguments.document.read_text(), tables_of(studies, arguments.runs)))
    arguments.plots.mkdir(exist_ok=True)
    listed = arguments.plots / 'runs.json'
    listed.write_text(list_of(studies, modular_tables.read_pools(studies['pools'], arguments.runs / 'pools'),
                              json.loads(listed.read_text()) if listed.exists() else []))
    plots.draw(studies, arguments.runs, arguments.plots)
    for study, arms in studies.items():
        print(f'{study}: {sum(map(len, arms.values()))} runs in {len(arms)} arms')


if __name__ == '__main__':
    main()
