// Groups and samples of a step's tokens: which tokens they hold, counted over replicas, tensor ranks and
// micro-batches that each see a part.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "layers/moe/methods/group_scope.h"
#include "layers/moe/methods/shuffle_scope.h"

namespace conclave {
namespace {

constexpr std::int64_t sequences = 8, length = 6, top_k = 2, layers = 2, experts = 5;

/// The experts that a token of the step chose; every eleventh is padding.
std::int32_t choice(std::int64_t layer, std::int64_t token, std::int64_t k) {
  if (token % 11 == 3) return -1;
  const auto first = static_cast<std::int64_t>(
      RandomKey(3).with(static_cast<std::uint64_t>(layer)).below(static_cast<std::uint64_t>(token), experts));
  return static_cast<std::int32_t>((first + k) % experts);
}

/// The share that tensor rank t of `ranks` sees of the tokens first .. first + count - 1 of the step.
std::vector<RouterStatistics> statistics_of(std::int64_t first, std::int64_t count, std::int64_t t,
                                            std::int64_t ranks) {
  std::vector<RouterStatistics> all;
  const std::int64_t here = count / ranks;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    std::vector<std::int32_t> chosen;
    std::vector<std::int64_t> counts(static_cast<std::size_t>(count / length * experts));
    for (std::int64_t token = t * here; token < (t + 1) * here; ++token)
      for (std::int64_t k = 0; k < top_k; ++k) {
        chosen.push_back(choice(layer, first + token, k));
        if (chosen.back() >= 0) ++counts[static_cast<std::size_t>(token / length * experts + chosen.back())];
      }
    RouterStatistics statistics;
    statistics.counts = Tensor::from(counts, {count / length, experts});
    statistics.chosen = Tensor::from(chosen, {here, top_k});
    statistics.first_token = t * here;
    all.push_back(statistics);
  }
  return all;
}

struct Cut {
  std::int64_t replicas, tensor, micro;
  std::int64_t micro_steps() const { return sequences / (replicas * micro); }
  BatchPlace place(std::int64_t replica) const {
    return {.replica = replica,
            .replicas = replicas,
            .micro_batch_size = micro,
            .micro_steps = micro_steps(),
            .sequence_length = length};
  }
};

/// Counts of all ranks and micro-steps together: [layers, sets, experts].
std::vector<std::int64_t> count_all(
    const Cut& cut, const std::function<std::unique_ptr<TokenSets>(const BatchPlace&)>& make) {
  std::vector<std::int64_t> counts;
  for (std::int64_t r = 0; r < cut.replicas; ++r) {
    const std::unique_ptr<TokenSets> sets = make(cut.place(r));
    counts.resize(static_cast<std::size_t>(layers * sets->sets() * experts));
    for (std::int64_t m = 0; m < cut.micro_steps(); ++m)
      for (std::int64_t t = 0; t < cut.tensor; ++t)
        sets->count(m,
                    read_routers(statistics_of((m * cut.replicas + r) * cut.micro * length,
                                               cut.micro * length, t, cut.tensor),
                                 sets->reads_chosen()),
                    counts);
  }
  return counts;
}

TEST(TokenSamples, AreDrawnWithoutReplacementFromTheWholeStepOnEveryCut) {
  const RandomKey key = RandomKey(7).with("balance shuffle").with(4);
  const std::int64_t micro = 2, size = micro * length, samples = sequences / micro;
  std::vector<std::int64_t> expected(static_cast<std::size_t>(layers * samples * experts));
  std::int64_t from_elsewhere = 0;
  for (std::int64_t sample = 0; sample < samples; ++sample) {
    std::set<std::uint64_t> drawn;
    for (std::int64_t draw = 0; draw < size; ++draw) {
      const std::uint64_t token = key.with(static_cast<std::uint64_t>(sample))
                                      .permute(static_cast<std::uint64_t>(draw), sequences * length);
      EXPECT_TRUE(drawn.insert(token).second);
      from_elsewhere += static_cast<std::int64_t>(token) / size != sample;
      for (std::int64_t layer = 0; layer < layers; ++layer)
        for (std::int64_t k = 0; k < top_k; ++k)
          if (const std::int32_t expert = choice(layer, static_cast<std::int64_t>(token), k); expert >= 0)
            ++expected[static_cast<std::size_t>((layer * samples + sample) * experts + expert)];
    }
  }
  EXPECT_GT(from_elsewhere,
            sequences * length / 2);  // three quarters of the tokens lie in other micro-batches
  for (const Cut& cut :
       {Cut{1, 1, micro}, Cut{2, 1, micro}, Cut{4, 1, micro}, Cut{1, 2, micro}, Cut{2, 3, micro}})
    EXPECT_EQ(
        count_all(cut, [&](const BatchPlace& place) { return std::make_unique<TokenSamples>(place, key); }),
        expected)
        << cut.replicas << " replicas, tensor " << cut.tensor;
}

TEST(TokenSamples, AreOthersInEachStepAndForEachMicroBatch) {
  const Cut cut{2, 1, 1};
  std::set<std::vector<std::int64_t>> seen;
  for (std::uint64_t step = 0; step < 3; ++step) {
    const std::vector<std::int64_t> counts = count_all(cut, [&](const BatchPlace& place) {
      return std::make_unique<TokenSamples>(place, RandomKey(7).with(step));
    });
    for (std::int64_t sample = 0; sample < sequences; ++sample)
      seen.insert({counts.begin() + sample * experts, counts.begin() + (sample + 1) * experts});
  }
  EXPECT_GT(seen.size(), 15u);  // of 24; two samples may count alike
}

TEST(SequenceGroups, HoldTheSequencesOfTheirPositions) {
  for (const std::int64_t group : {1, 2, 4, 8})
    for (const Cut& cut : {Cut{1, 1, 1}, Cut{2, 1, 1}, Cut{4, 1, 2}, Cut{2, 2, 2}, Cut{1, 1, 8}}) {
      const SequenceGroups of_first(cut.place(0), group);
      EXPECT_EQ(of_first.within_micro_step(),
                cut.micro_steps() == 1 || cut.replicas * cut.micro % group == 0);
      if (of_first.within_micro_step()) {
        EXPECT_EQ(of_first.sets() * group, cut.replicas * cut.micro);
      } else {
        EXPECT_EQ(of_first.sets() * group, sequences);
      }
      const std::int64_t per_round = of_first.sets();
      std::vector<std::int64_t> expected(static_cast<std::size_t>(layers * per_round * experts));
      for (std::int64_t token = 0; token < sequences * length; ++token)
        for (std::int64_t layer = 0; layer < layers; ++layer)
          for (std::int64_t k = 0; k < top_k; ++k)
            if (const std::int32_t expert = choice(layer, token, k); expert >= 0)
              ++expected[static_cast<std::size_t>(
                  (layer * per_round + token / length / group % per_round) * experts + expert)];
      EXPECT_EQ(
          count_all(cut,
                    [&](const BatchPlace& place) { return std::make_unique<SequenceGroups>(place, group); }),
          expected)
          << "groups of " << group << ", " << cut.replicas << " replicas, micro-batches of " << cut.micro;
    }
}

}  // namespace
}  // namespace conclave
