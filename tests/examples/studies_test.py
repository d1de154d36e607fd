"""The scripts of examples/studies on made-up runs: what is read, chosen, compared and refused. Standard library; the
statistics also need scipy, without which their cases are skipped.

    python3 tests/examples/studies_test.py
"""
import contextlib, importlib.util, io, json, os, pathlib, shutil, subprocess, sys, tempfile, unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
STUDIES = SOURCE / 'examples' / 'studies'
sys.path[:0] = [str(STUDIES), str(STUDIES / 'balance'), str(STUDIES / 'headline')]
import check, choose, results

HAS_SCIPY = importlib.util.find_spec('scipy') is not None
if HAS_SCIPY:
    import balance_tables, decide, evidence, modular_tables, paired


def make_run(directory, loss=2.0, information=0.1, overlap=0.5, violation=1.0, share=0.1, score=0.2):
    """As `conclave train` and `conclave evaluate --json` leave it: two layers, whose measures differ by a tenth."""
    directory.mkdir(parents=True)
    layers = [{'mutual_information': information * part, 'largest_share': share * part, 'score_sum': score * part,
               'routing_entropy': 3.0, 'mean_overlap': overlap} for part in (0.9, 1.1)]
    domains = [{'domain': name, 'lm_loss': loss + away, 'counts': [[30, 10, 10, 10, 10, 5, 5, 5, 5, 5, 5, 0]] * 2}
               for name, away in (('english', -0.1), ('c', 0.1))]
    (directory / 'evaluation.json').write_text(json.dumps({'mean_lm_loss': loss, 'domains': domains, 'layers': layers}))
    lines = [{'step': 1, 'lm_loss': 3.0, 'max_load_violation': violation, 'tokens': 10},
             {'step': 1, 'split': 'validation', 'domain': 'mean', 'lm_loss': 9.0}]
    (directory / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def make_runs(self, study, **arms):
        """arms: for each, the keywords of make_run by seed."""
        for arm, seeds in arms.items():
            for seed, values in seeds.items():
                make_run(self.folder / study / arm.replace('_', '-') / str(seed), **values)
        return results.read_runs(self.folder / study)


class Results(Folder):
    def test_a_run_is_what_its_files_say(self):
        run = self.make_runs('balance', micro={11: dict(loss=2.5, information=0.3, overlap=None, violation=0.7)})['micro'][11]
        self.assertEqual((run.arm, run.seed, run.loss, run.tokens, run.coefficient), ('micro', 11, 2.5, 10, None))
        self.assertAlmostEqual(run.information, 0.3)
        self.assertAlmostEqual(run.violation, 0.7)
        self.assertIsNone(run.overlap)
        self.assertEqual(run.domain_losses, {'english': 2.4, 'c': 2.6})

    def test_runs_that_are_not_measured_or_put_aside_do_not_count(self):
        (self.folder / 'balance' / 'micro' / '11').mkdir(parents=True)
        make_run(self.folder / 'balance' / 'micro' / '12.old')
        self.assertEqual(results.read_runs(self.folder / 'balance'), {})

    def test_the_coefficient_is_the_first_terms(self):
        for line, wanted in (('training.seed=11\tmodel.moe.balance=[{scope: global_batch, coefficient: 0.003}, '
                              '{scope: micro_batch, coefficient: 0.1}]\ta=b', 0.003),
                             ('model.moe.balance=[]\tmodel.moe.router.bias={coefficient: 5}', None)):
            (self.folder / 'run.txt').write_text(line + '\nrecipe 1 2\n')
            self.assertEqual(results.coefficient_of(self.folder), wanted)


class Choice(Folder):
    def sweep(self, losses, violations):
        for arm in losses:
            for seed in (1, 2):
                make_run(self.folder / arm / str(seed), loss=losses[arm], violation=violations[arm])

    def test_lowest_loss_and_nearest_load(self):
        self.sweep({'micro-0.01': 2.1, 'micro-0.1': 2.2, 'exact-0.01': 2.3, 'exact-0.1': 2.0},
                   {'micro-0.01': 1.0, 'micro-0.1': 0.3, 'exact-0.01': 1.5, 'exact-0.1': 0.5})
        self.assertEqual(choose.choose(self.folder, 2, ['0.01', '0.1']),
                         {'best_micro': '0.01', 'best_exact': '0.1', 'matched_exact': '0.01'})

    def test_nothing_is_chosen_from_a_part_of_the_sweep(self):
        self.sweep({'micro-0.01': 2.1, 'exact-0.01': 2.3}, {'micro-0.01': 1.0, 'exact-0.01': 1.5})
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(SystemExit) as ended:
            choose.choose(self.folder, 2, ['0.01', '0.1'])
        self.assertEqual(ended.exception.code, 2)
        self.assertIn('0 of 2 runs of micro-0.1', said.getvalue())


class Check(Folder):
    def outcome(self, micro, exact):
        self.make_runs('quick', micro={21: micro, 22: {}}, exact={21: exact, 22: dict(information=0.2, share=0.2, score=0.3)})
        sys.argv = ['check.py', str(self.folder / 'quick')]
        with contextlib.redirect_stdout(io.StringIO()):
            check.main()

    def test_every_measure_of_every_pair_must_be_larger(self):
        self.outcome({}, dict(information=0.11, share=0.11, score=0.21))

    def test_one_that_is_not_is_seen(self):
        with self.assertRaisesRegex(SystemExit, '1 of 6 measures'):
            self.outcome({}, dict(information=0.11, share=0.1, score=0.21))


@unittest.skipUnless(HAS_SCIPY, 'there is no scipy')
class Statistics(Folder):
    def test_interval_and_sign_test_by_hand(self):
        runs = self.make_runs('balance', micro={seed: dict(loss=2.0) for seed in (1, 2, 3, 4, 9)},
                              exact={seed: dict(loss=2.0 + seed) for seed in (1, 2, 3, 4)})
        comparison = paired.paired(runs['micro'], runs['exact'], 'loss')
        # 1, 2, 3, 4: mean 2.5, deviation sqrt(5 / 3); the t quantile with 3 degrees of freedom is 3.182446.
        for found, wanted in zip((comparison.mean, comparison.deviation, comparison.low, comparison.high, comparison.sign_p),
                                 (2.5, 1.290994, 2.5 - 2.054260, 2.5 + 2.054260, 0.125)):
            self.assertAlmostEqual(found, wanted, 5)
        self.assertEqual(comparison.above, 4)

    def test_pairs_needed(self):
        # An effect of one deviation: the well-known 10 pairs for a power of 80% at the 5% level.
        self.assertEqual(paired.pairs_needed(-2.0, 2.0), 10)

    def test_equal_differences_are_no_reason_to_stop(self):
        runs = self.make_runs('balance', micro={1: {}, 2: {}}, exact={1: {}, 2: {}})
        self.assertEqual(balance_tables.power_of(runs['micro'], runs['exact']), '')
        self.assertEqual(paired.paired(runs['micro'], runs['exact'], 'loss').above, 0)

    def test_trends_of_both_directions(self):
        fall = [[4.0, 3.0, 2.0, 1.0]] * 3
        most = (1 / 24) ** 3  # the most extreme of all orders of four, three times
        for rows, fall_p, rise_p, correlation in ((fall, most, 1, -1), ([row[::-1] for row in fall], 1, most, 1)):
            found = paired.trend([4, 8, 16, 64], rows)
            self.assertAlmostEqual(found.fall_p, fall_p)
            self.assertAlmostEqual(found.rise_p, rise_p)
            self.assertAlmostEqual(found.correlation, correlation)


@unittest.skipUnless(HAS_SCIPY, 'there is no scipy')
class Tables(Folder):
    def test_there_is_a_table_where_two_seeds_are_complete_and_none_elsewhere(self):
        self.assertEqual(evidence.tables_of({study: {} for study in evidence.STUDIES}, self.folder), {})
        arms = self.make_runs('balance', micro={11: {}}, exact={11: {}})
        self.assertEqual(balance_tables.balance_tables(arms), {})
        self.assertEqual(balance_tables.control_tables(arms), {})
        arms = self.make_runs('more', micro={11: {}, 12: dict(overlap=None)}, exact={11: {}, 12: dict(loss=1.9), 13: {}})
        tables = balance_tables.balance_tables(arms)
        self.assertEqual(sorted(tables), ['main', 'pairs'])
        overlap, = (line for line in tables['main'] if line.startswith('| overlap'))
        self.assertIn('not defined in every pair', overlap)
        self.assertEqual(sum(line.startswith('| 1') for line in tables['pairs']), 2)
        experts = self.make_runs('experts', coarse_top_1={11: {}, 12: {}})
        self.assertEqual(modular_tables.structure_tables(experts, self.folder / 'experts'), {})
        swept = self.make_runs('sweep', **{'micro_0.01': {1: {}}, 'exact_0.01.old': {1: {}}})
        self.assertEqual(balance_tables.balance_tables(swept)['sweep'][2:], ['| 0.01 | 2.0000 | – | 0.1000 | – | 1.00 | – |'])

    def test_layouts_are_compared_seed_by_seed(self):
        def seeds(away):
            return {seed: dict(loss=2 + away * seed) for seed in (11, 12, 13)}
        arms = self.make_runs('balance', micro=seeds(0), exact=seeds(0.1), micro_2_ranks=seeds(0),
                              exact_2_ranks={seed: value for seed, value in seeds(0.1).items() if seed != 12})
        tables = balance_tables.layout_tables(arms)
        loss, = (line.replace('-0.0000', '+0.0000') for line in tables['layout'] if line.startswith('| loss'))
        self.assertIn('2 of 2 | 2 of 2 | +0.0000 (+0.0000 to +0.0000) |', loss)
        loss, = (line for line in tables['layout-within'] if line.startswith('| loss'))
        self.assertIn('| 0.0000, 0.0000 | 0.0000, 0.1414 |', loss)

    def test_controls_are_compared_with_both_arms(self):
        arms = self.make_runs('controls', micro={11: {}, 12: {}}, exact={11: dict(information=0.3), 12: dict(information=0.3)},
                              shuffle={11: dict(information=0.2, loss=1.9), 12: dict(information=0.4, loss=1.9)})
        tables = balance_tables.controls_tables(arms)
        shuffle, = (line for line in tables['controls-pairs'] if 'shuffled' in line)
        self.assertIn('-0.1000 (-0.1000 to -0.1000)', shuffle)
        self.assertTrue(shuffle.endswith('| 1 of 2 |'), shuffle)

    def test_structures_are_contrasted_and_their_groups_measured(self):
        arms = self.make_runs('experts', fine={11: {}, 12: {}}, fine_2_shared={11: dict(loss=1.9), 12: dict(loss=1.9)})
        tables = modular_tables.structure_tables(arms, self.folder / 'experts')
        self.assertEqual(tables['experts-contrasts'][2:],
                         ['| two of them shared | -0.1000 (-0.1000 to -0.1000) | 2 of 2 |'])
        # In every domain and layer two groups of 75 and 25.
        self.assertAlmostEqual(modular_tables.group_violation(self.folder / 'experts/fine/11', 2), 75 / 50 - 1)

    def test_what_is_lost_by_keeping_few_experts(self):
        kept = {'standard': 0.5, 'pools': 0.1}  # the rise of 8 experts; one seed of pools-wide compares with nothing
        arms = self.make_runs('pools', standard={31: {}, 32: {}}, pools={31: dict(loss=2.1), 32: dict(loss=2.1)},
                              pools_wide={31: {}})
        for arm, rise in kept.items():
            for seed, run in arms[arm].items():
                directory = self.folder / 'pools' / arm / str(seed)
                (directory / 'subsets').mkdir()
                if arm == 'pools':
                    (directory / 'without_pools.json').write_text('{"mean_lm_loss": 2.04}')
                for domain, loss in run.domain_losses.items():
                    for experts, part in (('4', 2), ('8', 1), ('8-scaled', 0.5), ('16', 0.25)):
                        (directory / 'subsets' / f'{domain}-{experts}.json').write_text(
                            json.dumps({'mean_lm_loss': loss + rise * part}))
        tables = modular_tables.pool_tables(arms, self.folder / 'pools')
        losses, rises = tables['pools'], tables['pools-rises']
        self.assertIn('| all 32 experts, without pools | 2.0000 | 2.0400 | +0.0400 (+0.0400 to +0.0400) |', losses)
        self.assertIn('| all 32 experts, with pools | 2.0000 | 2.1000 | +0.1000 (+0.1000 to +0.1000) |', losses)
        self.assertIn('| 4 experts | 3.0000 | 2.3000 | -0.7000 (-0.7000 to -0.7000) |', losses)
        # 2.1 + 0.1 with 8 experts, of which none is a pool, over 2.04
        self.assertIn('| 8 experts | +0.5000 | +0.1600 | -0.3400 (-0.3400 to -0.3400) |', rises)
        self.assertIn('pools of 3 to 33 +2.00% without pools, +5.00% with', '\n'.join(losses))
        self.assertIn('| english | 2.1500 | 2.0500 |', tables['pools-by-domain'])

    def test_figures_of_studies_without_runs_stay(self):
        before = [dict(study='pools', arm='standard'), dict(study='balance', arm='old')]
        arms = self.make_runs('balance', micro={11: {}})
        found = json.loads(evidence.list_of({'balance': arms, 'pools': {}}, {}, before))
        self.assertEqual([(line['study'], line['arm']) for line in found], [('balance', 'micro'), ('pools', 'standard')])

    def test_a_table_without_a_place_is_a_mistake(self):
        document = 'a\n<!-- table sweep -->\nold\n<!-- end -->\nb\n'
        self.assertEqual(evidence.insert(document, {'sweep': ['new']}), document.replace('old', 'new'))
        with self.assertRaisesRegex(SystemExit, 'table main'):
            evidence.insert(document, {'main': ['new']})


@unittest.skipUnless(HAS_SCIPY, 'needs scipy')
class Headline(unittest.TestCase):
    """The rules that docs/evidence/headline_design.md set before any run."""

    @staticmethod
    def run_of(arm, seed, loss, last=None):
        return decide.Run(arm, seed, loss, loss if last is None else last, loss, loss / 3, 0.1, 0.1, 0.1, 1.0)

    def sweep(self, **losses):
        """losses: of each arm, by coefficient."""
        arms = {}
        for kind, by_coefficient in losses.items():
            for coefficient, loss in by_coefficient.items():
                arm = f'{kind}-{coefficient}'
                arms[arm] = {seed: self.run_of(arm, seed, loss) for seed in (1, 2)}
        return arms

    def pairs(self, first, second, differences, seed=0):
        """Two arms that differ so: second - first."""
        return {first: {seed + i: self.run_of(first, seed + i, 5.0 + 0.1 * i) for i in range(len(differences))},
                second: {seed + i: self.run_of(second, seed + i, 5.0 + 0.1 * i + d) for i, d in enumerate(differences)}}

    def test_the_sweep_grows_until_the_best_lies_inside(self):
        inside, at_the_end = {0.003: 5, 0.01: 4, 0.03: 4.5, 0.1: 5}, {0.003: 5, 0.01: 4.5, 0.03: 4.2, 0.1: 4}
        self.assertEqual(decide.coefficients({}), [0.003, 0.01, 0.03, 0.1])
        self.assertEqual(decide.coefficients(self.sweep(micro=inside)), [0.003, 0.01, 0.03, 0.1])
        self.assertEqual(decide.coefficients(self.sweep(micro=inside, **{'global': at_the_end})), [0.003, 0.01, 0.03, 0.1, 0.3])
        grown = self.sweep(micro=inside | {0.3: 6}, **{'global': at_the_end | {0.3: 5}})
        self.assertEqual(decide.coefficients(grown), [0.003, 0.01, 0.03, 0.1, 0.3])
        self.assertEqual(decide.choose(grown), {'micro': 0.01, 'global': 0.1})
        with self.assertRaises(SystemExit):
            decide.choose(self.sweep(micro=inside, **{'global': at_the_end}))

    def test_the_pilot_sets_measure_and_pairs(self):
        arms = self.pairs('pilot-micro', 'pilot-global', [0.05, -0.05, 0.04, -0.04, 0.03, -0.03])
        for seed, run in arms['pilot-global'].items():  # training losses differ less
            arms['pilot-global'][seed] = decide.dataclasses.replace(run, last_steps=5.0 + 0.1 * seed - 0.02 + 0.001 * seed)
        name, spread = decide.measure_of(arms)
        self.assertEqual(name, 'last_steps')
        self.assertLess(spread, 0.01)
        self.assertEqual(decide.count_of_pairs(arms), decide.FEWEST)
        noisy = self.pairs('pilot-micro', 'pilot-global', [1, -1, 0.9, -0.9, 0.8, -0.8])
        self.assertEqual(decide.count_of_pairs(noisy), decide.MOST)
        with self.assertRaises(SystemExit):
            decide.measure_of(self.pairs('pilot-micro', 'pilot-global', [0.1] * 5))

    def test_verdicts(self):
        for differences, wanted in (([-0.02 + 0.001 * (i % 3) for i in range(24)], 'shown'),
                                    ([0.02 + 0.001 * (i % 3) for i in range(24)], 'the contrary'),
                                    ([0.01 * (-1) ** i for i in range(24)], 'excluded'),
                                    ([0.1 * (-1) ** i - 0.01 for i in range(24)], 'undecided')):
            arms = self.pairs('micro', 'global', differences)
            verdict = decide.judge(paired.paired(arms['micro'], arms['global'], 'held_out'))
            self.assertTrue(verdict.startswith(wanted), verdict)


# Stands for the program: notes what it was asked, fails where the arm is called broken.
CONCLAVE = '''#!/usr/bin/env bash
[ "$1" != --version ] || exit 0
echo "$*" >>calls.txt
case "$*" in
  *broken*) echo "conclave: it is broken" >&2; exit 4 ;;
  evaluate*) echo '{}' ;;
esac
'''
STUDY = '''#!/usr/bin/env bash
# A study.
#
# Its second line.
set -euo pipefail
source "$(dirname "$0")/../runs.sh"
[ "${1:-}" != --help ] || usage
run_line runs/studies/a/1 1 recipe.yaml "training.seed=1" "name=${NAME:-two words}" >lines
run_line "runs/studies/${ARM:-b}/2" 1 recipe.yaml >>lines
run_all 1 <lines
'''


class Queue(Folder):
    def setUp(self):
        super().setUp()
        (self.folder / 'examples/studies/study').mkdir(parents=True)
        (self.folder / 'build/release').mkdir(parents=True)
        shutil.copy(STUDIES / 'runs.sh', self.folder / 'examples/studies/runs.sh')
        (self.folder / 'recipe.yaml').write_text('# a comment\nname: study\n')
        for path, text in (('build/release/conclave', CONCLAVE), ('examples/studies/study/run.sh', STUDY)):
            (self.folder / path).write_text(text)
            (self.folder / path).chmod(0o755)

    def run_study(self, *arguments, **environment):
        return subprocess.run(['bash', 'run.sh', *arguments], cwd=self.folder / 'examples/studies/study', text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | environment)

    def calls(self):
        return (self.folder / 'calls.txt').read_text().splitlines()

    def test_runs_are_trained_measured_and_not_repeated(self):
        first = self.run_study()
        self.assertEqual(first.returncode, 0, first.stdout)
        self.assertIn('2 runs, 0 of them done before', first.stdout)
        self.assertEqual(self.calls()[0], 'train recipe.yaml training.seed=1 name=two words output=runs/studies/a/1')
        self.assertEqual(len(self.calls()), 4)
        self.assertTrue((self.folder / 'runs/studies/b/2/evaluation.json').exists())
        self.assertIn('2 runs, 2 of them done before', self.run_study().stdout)
        self.assertEqual(len(self.calls()), 4)

    def test_a_failure_ends_the_study_with_its_reason_and_what_is_done_stays(self):
        failed = self.run_study(ARM='broken')
        self.assertNotEqual(failed.returncode, 0)
        self.assertIn('runs/studies/broken/2 ended with exit code 4: conclave: it is broken', failed.stdout)
        self.assertIn('2 runs, 1 of them done before', self.run_study(ARM='b').stdout)

    def test_a_run_of_other_settings_is_refused(self):
        self.run_study()
        for change in (lambda: self.run_study(NAME='another'), self.with_another_recipe):
            refused = change()
            self.assertEqual(refused.returncode, 2, refused.stdout)
            self.assertIn('runs/studies/a/1 holds a run of other settings', refused.stdout)

    def with_another_recipe(self):
        (self.folder / 'recipe.yaml').write_text('name: another\n')
        return self.run_study()

    def test_help_is_the_first_comment_from_anywhere(self):
        shown = self.run_study('--help')
        self.assertEqual((shown.returncode, shown.stdout), (2, 'A study.\n\nIts second line.\n'))


if __name__ == '__main__':
    unittest.main()
