// SamplePlan: pure, even in its weights at every moment, in runs of domain_block, and complete.
#include "framework/data/sample_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "tests/framework/data/files_for_tests.h"

namespace conclave {
namespace {

std::int64_t sixteen(std::int64_t) {
  return 16;
}

TEST(SamplePlan, DoesNotDependOnTheOrderOfCalls) {
  const std::vector<double> weights = {3, 1, 2};
  SamplePlan forward(weights, 4, 7, sixteen), backward(weights, 4, 7, sixteen),
      other_seed(weights, 4, 8, sixteen);
  std::vector<std::vector<SampleId>> steps;
  for (std::int64_t step = 0; step < 20; ++step) steps.push_back(forward.step(step));
  int differing = 0;
  for (std::int64_t step = 19; step >= 0; --step) {
    EXPECT_EQ(backward.step(step), steps[static_cast<std::size_t>(step)]);
    differing += other_seed.step(step) != steps[static_cast<std::size_t>(step)];
    for (std::int64_t position = 15; position >= 0; --position)  // however the positions are cut over ranks
      EXPECT_EQ(backward.at(step, position),
                steps[static_cast<std::size_t>(step)][static_cast<std::size_t>(position)]);
  }
  EXPECT_GT(differing, 10);
}

TEST(SamplePlan, BlocksComeFromOneDomainAndSamplesAreConsecutive) {
  for (const std::int64_t block : {0, 1, 4, 8, 16}) {
    SamplePlan plan({5, 2, 1}, block, 3, sixteen);
    std::map<std::int32_t, std::set<std::int64_t>> seen;
    const auto run = static_cast<std::size_t>(std::max<std::int64_t>(1, block));
    for (std::int64_t step = 0; step < 50; ++step) {
      const auto ids = plan.step(step);
      for (std::size_t position = 0; position < ids.size(); ++position) {
        const SampleId first = ids[position / run * run];
        EXPECT_EQ(ids[position].domain, first.domain);
        EXPECT_EQ(ids[position].sample, first.sample + static_cast<std::int64_t>(position % run));
        EXPECT_TRUE(seen[ids[position].domain].insert(ids[position].sample).second);
      }
    }
    std::size_t total = 0;
    for (const auto& [domain, samples] : seen) {  // 0, 1, 2 ... without a hole
      EXPECT_EQ(*samples.rbegin(), static_cast<std::int64_t>(samples.size()) - 1);
      total += samples.size();
    }
    EXPECT_EQ(total, 50u * 16u);
  }
}

TEST(SamplePlan, SaysHowManySamplesEachDomainHasGiven) {
  for (const std::int64_t block : {0, 2}) {
    SamplePlan plan({5, 2, 1}, block, 3, [](std::int64_t step) { return step < 10 ? 2 : 6; });
    std::vector<std::int64_t> given(3);
    for (std::int64_t step = 0; step < 60; ++step) {
      EXPECT_EQ(plan.origin_at(step).drawn, given) << step;
      for (const SampleId& id : plan.step(step)) ++given[static_cast<std::size_t>(id.domain)];
    }
  }
}

TEST(SamplePlan, EveryDomainStaysWithinOneBlockOfItsShare) {
  const std::vector<double> weights = {0.5, 0.25, 0.1, 0.07, 0.05, 0.02, 0.01, 0.0};
  for (const std::int64_t block : {1, 2}) {
    SamplePlan plan(weights, block, 1, [](std::int64_t step) { return step < 10 ? 2 : 6; });  // a batch ramp
    std::vector<double> drawn(weights.size(), 0);
    double total = 0;
    for (std::int64_t step = 0; step < 2000; ++step) {
      for (const SampleId& id : plan.step(step)) drawn[static_cast<std::size_t>(id.domain)] += 1;
      total += step < 10 ? 2 : 6;
      for (std::size_t d = 0; d < weights.size(); ++d)
        ASSERT_LT(std::abs(drawn[d] - weights[d] * total), 1.05 * static_cast<double>(block))
            << "domain " << d << " after step " << step;
    }
    EXPECT_EQ(drawn.back(), 0);
  }
}

TEST(SamplePlan, BlocksOfAStepAreShuffled) {
  SamplePlan plan({1, 1}, 0, 5, sixteen);
  int alternating = 0;
  for (std::int64_t step = 0; step < 20; ++step) {
    const auto ids = plan.step(step);
    bool alternates = true;
    for (std::size_t i = 1; i < ids.size(); ++i) alternates &= ids[i].domain != ids[i - 1].domain;
    alternating += alternates;
  }
  EXPECT_LT(alternating, 2);
}

TEST(SamplePlan, GoesOnAcrossThePeriodOfItsSchedule) {
  // One step of 2^16 sequences is a sixteenth of the period of 2^20 blocks; samples stay complete beyond it.
  constexpr std::int64_t size = 1 << 16;
  SamplePlan plan({2, 1}, 0, 5, [](std::int64_t) { return size; });
  std::vector<std::vector<bool>> seen(2, std::vector<bool>(18 * size));
  std::vector<std::size_t> counts(2);
  for (std::int64_t step = 0; step < 18; ++step)
    for (const SampleId& id : plan.step(step)) {
      auto&& place = seen[static_cast<std::size_t>(id.domain)][static_cast<std::size_t>(id.sample)];
      ASSERT_FALSE(place);
      place = true;
      ++counts[static_cast<std::size_t>(id.domain)];
    }
  for (std::size_t d = 0; d < 2; ++d)
    EXPECT_EQ(std::count(seen[d].begin(), seen[d].begin() + static_cast<std::ptrdiff_t>(counts[d]), false),
              0);
  EXPECT_NEAR(static_cast<double>(counts[0]), 12.0 * size, 4.0);
}

TEST(SamplePlan, WrongRequestsAreSentences) {
  const auto fault = [](const std::vector<double>& weights, std::int64_t block, std::int64_t size) {
    return error_of([&] { SamplePlan(weights, block, 1, [=](std::int64_t) { return size; }).step(0); })
        .fault();
  };
  EXPECT_EQ(fault({1}, 3, 16), Fault::request);
  EXPECT_EQ(fault({1}, -1, 16), Fault::request);
  EXPECT_EQ(fault({1}, 0, 0), Fault::request);
  EXPECT_EQ(fault({}, 0, 16), Fault::request);
  EXPECT_EQ(fault({0, 0}, 0, 16), Fault::request);
  EXPECT_EQ(fault({1, -1}, 0, 16), Fault::request);
  EXPECT_EQ(fault({1, std::nan("")}, 0, 16), Fault::request);
}

}  // namespace
}  // namespace conclave
