// The mistakes that implementations of the global balance loss make, each put into the code path on purpose:
// a reduction that does something else, statistics that were counted otherwise, a wrong total, a loss object
// for each layer. Threads stand for ranks. The one comparison with the specification's formula must pass
// without a mistake and see each of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <thread>

#include "tests/layers/moe/balance_oracle.h"
#include "tests/layers/moe/thread_communicator.h"

namespace conclave {
namespace {

using namespace test;
using Ranks = std::vector<std::vector<MicroBatch>>;  // [ranks][micro-steps]

/// Three ranks with two micro-batches each, uneven; experts receive up to a thousand tokens.
Ranks make_ranks() {
  Ranks ranks(3);
  for (std::uint64_t rank = 0; rank < 3; ++rank)
    for (std::uint64_t m = 0; m < 2; ++m)
      ranks[rank].push_back(make_micro_batch(31 + 2 * rank + m, 1 + static_cast<std::int64_t>(rank),
                                             211 + 97 * static_cast<std::int64_t>(m)));
  return ranks;
}

std::int64_t tokens_of(const Ranks& ranks) {
  std::int64_t tokens = 0;
  for (const auto& micro_batches : ranks) tokens += test::tokens_of(micro_batches);
  return tokens;
}

/// How much a sequence's probabilities hang on the shared parameter whose gradient is compared.
double weight_of(std::size_t rank, std::size_t m, std::size_t row) {
  return 1 + static_cast<double>(rank) + 2 * static_cast<double>(m) + 0.5 * static_cast<double>(row);
}

struct Experiment {
  Estimator estimator = Estimator::exact;
  Ranks ranks = make_ranks();
  test::Rule rule = sum;
  std::int64_t step_tokens = tokens_of(make_ranks());
  int forwards = 1;  // passes through the routers per micro-batch: 2 when recomputed
  std::size_t layers_of_a_loss = layers;
};

struct Observed {
  Numbers gradient;                  // [layers, experts] of the shared parameter, reduced over ranks
  std::vector<std::int64_t> counts;  // [layers, experts]
  double loss = 0;                   // load_balance_loss
  std::int64_t statistics_calls = 0;
};

Observed run_rank(const Experiment& experiment, std::size_t rank, Communicator& data) {
  std::vector<MicroBatch> micro_batches = experiment.ranks[rank];
  std::vector<std::unique_ptr<Objectives>> objectives;
  std::vector<std::unique_ptr<Objectives::Step>> losses;
  const std::size_t part = experiment.layers_of_a_loss;
  const auto part_of = [&](const MicroBatch& micro, std::size_t loss) {
    const auto begin = micro.statistics.begin() + static_cast<std::ptrdiff_t>(loss * part);
    return std::vector<RouterStatistics>(begin, begin + static_cast<std::ptrdiff_t>(part));
  };
  for (std::size_t i = 0; i < layers / part; ++i) {
    objectives.push_back(
        std::make_unique<Objectives>(recipe_with(BalanceScope::global_batch, experiment.estimator),
                                     static_cast<std::int64_t>(part), data));
    objectives[i]->states().at(0)->values = Numbers(part * experts, 1.0 / experts);
    losses.push_back(std::make_unique<Objectives::Step>(
        *objectives[i], StepFacts{.step = 0, .tokens = experiment.step_tokens, .place = {}}));
    if (!losses[i]->needs_counting_pass()) continue;
    for (const MicroBatch& micro : micro_batches) losses[i]->count(part_of(micro, i));
    losses[i]->finish_counting();
  }
  Observed observed{.gradient = Numbers(layers * experts)};
  for (std::size_t m = 0; m < micro_batches.size(); ++m) {
    for (std::size_t i = 0; i < losses.size(); ++i) {
      Tape tape;
      Variable objective;
      for (int pass = 0; pass < experiment.forwards; ++pass)
        objective = losses[i]->begin_micro_step(part_of(micro_batches[m], i)).objective(tape);
      tape.backward(objective);
    }
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const Numbers gradient =
          micro_batches[m].statistics[layer].probability_sums.gradient.take().to_host<double>();
      for (std::size_t i = 0; i < gradient.size(); ++i)
        observed.gradient[layer * experts + i % experts] += weight_of(rank, m, i / experts) * gradient[i];
    }
  }
  const Tensor gradient = Tensor::from(observed.gradient, {layers, experts});
  data.all_reduce(gradient, ReduceOp::sum, Purpose::gradients);
  observed.gradient = gradient.to_host<double>();
  for (const auto& loss : losses) {
    const BalanceReport report = loss->end();
    observed.counts.insert(observed.counts.end(), report.counts.begin(), report.counts.end());
    observed.loss += report.load_balance_loss / static_cast<double>(losses.size());
  }
  observed.statistics_calls = data.traffic()[Purpose::statistics].calls;
  return observed;
}

std::vector<Observed> run(const Experiment& experiment) {
  ThreadGroup group(static_cast<int>(experiment.ranks.size()), experiment.rule);
  std::vector<Observed> observed(experiment.ranks.size());
  std::vector<std::jthread> threads;
  for (std::size_t rank = 0; rank < observed.size(); ++rank)
    threads.emplace_back([&, rank] {
      ThreadCommunicator data(group, static_cast<int>(rank));
      observed[rank] = run_rank(experiment, rank, data);
    });
  threads.clear();  // joins
  return observed;
}

/// The formula, on one rank that sees all tokens.
Observed oracle(Estimator estimator) {
  const Ranks ranks = make_ranks();
  const double all = static_cast<double>(tokens_of(ranks));
  Observed expected{.gradient = Numbers(layers * experts),
                    .counts = std::vector<std::int64_t>(layers * experts)};
  // exact: counts of the counting pass and of the step, sums; warm: counts of two micro-steps, sums.
  expected.statistics_calls = 3;
  Numbers seen(layers * experts), step(layers * experts);
  double seen_tokens = 0;
  const auto add_micro_step = [&](Numbers& counts, std::size_t m) {
    for (const auto& micro_batches : ranks)
      for (std::size_t i = 0; i < counts.size(); ++i)
        counts[i] += static_cast<double>(micro_batches[m].counts[i / experts][i % experts]);
  };
  for (std::size_t m = 0; m < 2; ++m) add_micro_step(step, m);
  for (std::size_t m = 0; m < 2; ++m) {
    add_micro_step(seen, m);
    for (const auto& micro_batches : ranks) seen_tokens += static_cast<double>(micro_batches[m].tokens);
    for (std::size_t i = 0; i < seen.size(); ++i) {
      const double f = estimator == Estimator::exact
                           ? step[i] / (top_k * all)
                           : (seen[i] / top_k + (all - seen_tokens) / experts) / all;
      for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
        for (std::size_t row = 0; row <= rank; ++row)  // rank r packs r + 1 sequences
          expected.gradient[i] += 0.5 * experts / all * f * weight_of(rank, m, row);
        expected.loss +=
            experts / all * f * ranks[rank][m].probability_sums[i / experts][i % experts] / layers;
      }
    }
  }
  for (std::size_t i = 0; i < step.size(); ++i) expected.counts[i] = static_cast<std::int64_t>(step[i]);
  return expected;
}

/// Everything that the comparison finds on any rank, in words.
std::string findings(const Experiment& experiment) {
  const Observed expected = oracle(experiment.estimator);
  bool gradient = false, counts = false, loss = false, calls = false;
  for (const Observed& observed : run(experiment)) {
    for (std::size_t i = 0; i < expected.gradient.size(); ++i)
      gradient |= !(std::abs(observed.gradient[i] / expected.gradient[i] - 1) < 1e-12);
    counts |= observed.counts != expected.counts;
    loss |= !(std::abs(observed.loss / expected.loss - 1) < 1e-12);
    calls |= observed.statistics_calls != expected.statistics_calls;
  }
  return std::string(gradient ? "gradient " : "") + (counts ? "counts " : "") + (loss ? "loss " : "") +
         (calls ? "calls " : "");
}

/// Changes the counts that the routers hand over, sequence by sequence.
void recount(Experiment& experiment, const std::function<std::int64_t(std::int64_t)>& change) {
  for (auto& micro_batches : experiment.ranks)
    for (MicroBatch& micro : micro_batches)
      for (RouterStatistics& statistics : micro.statistics) {
        std::vector<std::int64_t> counts = statistics.counts.to_host<std::int64_t>();
        for (std::int64_t& count : counts) count = change(count);
        statistics.counts = Tensor::from(counts, statistics.counts.shape());
      }
}

double bf16(double value) {
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(static_cast<float>(value)) + 0x8000u) &
                              0xffff0000u);
}

struct Mistake {
  const char* name;
  Estimator estimator;
  const char* seen_in;  // all of findings()
  std::function<void(Experiment&)> plant;
};

const std::vector<Mistake>& mistakes() {
  static const std::vector<Mistake> table = {
      {"1 averaged over ranks", Estimator::exact, "gradient loss ",
       [](Experiment& e) {
         e.rule = [](const auto& all, int rank, DType dtype) {
           Numbers mean = sum(all, rank, dtype);
           if (dtype != DType::int64)
             for (double& value : mean) value /= static_cast<double>(all.size());
           return mean;
         };
       }},
      {"2 the tokens of one micro-batch stand for the others", Estimator::exact, "gradient loss ",
       [](Experiment& e) { e.step_tokens = e.ranks[0][0].tokens * 6; }},
      {"3 counts of this rank only", Estimator::warm, "gradient counts loss ",
       [](Experiment& e) {
         e.rule = [](const auto& all, int rank, DType dtype) {
           return dtype == DType::int64 ? all[static_cast<std::size_t>(rank)] : sum(all, rank, dtype);
         };
       }},
      {"3 a rank reads what another has reduced in place already", Estimator::exact, "gradient counts loss ",
       [](Experiment& e) {
         e.rule = [](auto all, int rank, DType dtype) {
           if (dtype == DType::int64 && rank > 0) all[0] = sum(all, rank, dtype);
           return sum(all, rank, dtype);
         };
       }},
      {"4 counts reduced in bf16", Estimator::exact, "gradient counts loss ",
       [](Experiment& e) {
         e.rule = [](const auto& all, int rank, DType dtype) {
           Numbers total = sum(all, rank, dtype);
           if (dtype == DType::int64)
             for (double& value : total) value = bf16(value);
           return total;
         };
       }},
      {"4 a bf16 counter stops at 256", Estimator::exact, "gradient counts loss ",
       [](Experiment& e) {
         e.rule = [](const auto& all, int rank, DType dtype) {
           Numbers total = sum(all, rank, dtype);
           if (dtype == DType::int64)
             for (double& value : total) value = std::min(value, 256.0);
           return total;
         };
       }},
      {"5 recomputation counts again", Estimator::warm, "gradient counts loss calls ",
       [](Experiment& e) { e.forwards = 2; }},
      {"6 every group of tokens counted on two tensor-parallel ranks", Estimator::warm,
       "gradient counts loss ",
       [](Experiment& e) {
         for (const Ranks again = make_ranks(); const auto& micro_batches : again)
           e.ranks.push_back(micro_batches);
       }},
      {"6 a group that holds other tokens is left out", Estimator::exact, "gradient counts loss ",
       [](Experiment& e) {
         e.rule = [](auto all, int rank, DType dtype) {
           if (dtype == DType::int64) all.pop_back();
           return sum(all, rank, dtype);
         };
       }},
      {"7 an all-reduce for each layer", Estimator::warm, "calls ",
       [](Experiment& e) { e.layers_of_a_loss = 1; }},
      {"8 counts of a plain top-k", Estimator::exact, "gradient counts loss ",
       [](Experiment& e) {
         for (auto& micro_batches : e.ranks)
           for (MicroBatch& micro : micro_batches)
             for (std::size_t layer = 0; layer < layers; ++layer)
               micro.statistics[layer].counts = micro.plain_counts[layer];
       }},
      {"counted after dropping what exceeds a capacity", Estimator::exact, "gradient counts loss ",
       [](Experiment& e) {
         recount(e, [](std::int64_t count) { return std::min<std::int64_t>(count, 80); });
       }},
  };
  return table;
}

TEST(PlantedBalanceMistakes, WithoutOneEverythingAgrees) {
  for (const Estimator estimator : {Estimator::exact, Estimator::warm}) {
    Experiment right;
    right.estimator = estimator;
    EXPECT_EQ(findings(right), "") << estimator;
  }
}

TEST(PlantedBalanceMistakes, EachIsSeen) {
  for (const Mistake& mistake : mistakes()) {
    Experiment experiment;
    experiment.estimator = mistake.estimator;
    mistake.plant(experiment);
    EXPECT_EQ(findings(experiment), mistake.seen_in) << mistake.name << ", " << mistake.estimator;
  }
}

}  // namespace
}  // namespace conclave
