"""Statistics of runs in pairs, one pair per seed."""
import dataclasses, math, statistics

from scipy import stats


@dataclasses.dataclass(frozen=True)
class Paired:
    """Differences second - first over the seeds that both arms have."""
    differences: list[float]
    mean: float
    deviation: float        # between seeds
    low: float              # the 95% t-interval of the mean
    high: float
    above: int              # pairs in which the second is higher
    sign_p: float           # two-sided sign test


def paired(first, second, name):
    """first, second: runs by seed; name: what of a Run is compared."""
    seeds = sorted(first.keys() & second.keys())
    differences = [getattr(second[seed], name) - getattr(first[seed], name) for seed in seeds]
    count = len(differences)
    assert count >= 2, f'{name}: {count} pairs are too few for an interval'
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    half = stats.t.ppf(0.975, count - 1) * deviation / math.sqrt(count)
    above = sum(difference > 0 for difference in differences)
    decided = sum(difference != 0 for difference in differences)
    return Paired(differences, mean, deviation, mean - half, mean + half, above,
                  stats.binomtest(above, decided).pvalue if decided else 1.0)


def pairs_needed(difference, deviation, power=0.8, level=0.05):
    """How many pairs whose differences deviate like this see a true difference with this power at this level, in a
    two-sided t-test: its power by the noncentral t distribution, from the normal approximation upwards."""
    effect = abs(difference) / deviation
    count = max(2, math.floor((stats.norm.ppf(1 - level / 2) + stats.norm.ppf(power)) ** 2 / effect ** 2))
    while 1 - stats.nct.cdf(stats.t.ppf(1 - level / 2, count - 1), count - 1, effect * math.sqrt(count)) < power:
        count += 1
    return count


@dataclasses.dataclass(frozen=True)
class Trend:
    fall_p: float           # Page's exact test, one-sided, for a fall along the sizes
    rise_p: float           # for a rise
    correlation: float      # Spearman's, within a seed, mean over seeds


def trend(sizes, rows):
    """Of rows [seeds][sizes]."""
    return Trend(stats.page_trend_test([[-value for value in row] for row in rows]).pvalue,
                 stats.page_trend_test(rows).pvalue,
                 statistics.fmean(stats.spearmanr(sizes, row).statistic for row in rows))
