// The assignments that a capacity drops, on one rank: routings made by hand whose dropped assignments are
// known. That layouts agree is shown by tests/launch/parallel_layout_test.cpp, gradients by
// transformer_test.cpp.
#include "layers/moe/methods/capacity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "layers/moe/routing_steps.h"

#include "layers/moe/recipe.h"

namespace conclave {
namespace {

std::int64_t dropped_of(const Routing& routing) {
  const NamedCounts& counts = routing.statistics.others.at(0);
  EXPECT_EQ(counts.name, "dropped");
  return counts.values.to_host<std::int64_t>().at(0);
}

/// Two sequences of 4 tokens, 3 experts, top 2. Token 7 is padding.
struct Hand {
  std::vector<std::int32_t> experts = {0, 1, 0, 1, 0, 2, 1, 0, /* second */ 2, 0, 2, 0, 0, 1, -1, -1};
  std::vector<double> probabilities = {
      0.50, 0.30, 0.20,  // token 0: experts 0 and 1
      0.60, 0.30, 0.10,  // 1: 0 and 1
      0.45, 0.15, 0.40,  // 2: 0 and 2
      0.20, 0.70, 0.10,  // 3: 1 and 0
      0.40, 0.10, 0.50,  // 4: 2 and 0
      0.41, 0.09, 0.50,  // 5: 2 and 0
      0.55, 0.35, 0.10,  // 6: 0 and 1
      0.00, 0.00, 0.00,  // 7: padding
  };
  std::vector<std::int32_t> kept;
  std::int64_t dropped = 0;

  Routing routing() const {
    Routing made;
    made.experts = Tensor::from(experts, {8, 2});
    made.probabilities = Tensor::from(probabilities, {8, 3});
    made.weights.value = Tensor::from(std::vector<double>(16, 0.5), {8, 2});
    made.statistics.counts = Tensor::from(std::vector<std::int64_t>{4, 3, 1, 3, 1, 2}, {2, 3});
    return made;
  }
  void limit(double capacity_factor) {
    const Routing before = routing();
    ModelInput input;
    input.sequences = 2;
    input.length = 4;
    const auto self = self_communicator();
    const Routing after = Capacity(capacity_factor).limit(before, {{}, input, *self});
    kept = after.experts.to_host<std::int32_t>();
    dropped = dropped_of(after);
    EXPECT_EQ(before.experts.to_host<std::int32_t>(), experts) << "the router's own choice was touched";
    EXPECT_EQ(after.weights.value.raw(), before.weights.value.raw());
    EXPECT_EQ(after.statistics.counts.raw(), before.statistics.counts.raw());
  }
};

TEST(Capacity, IsAFactorOfTheEvenShareRoundedDown) {
  EXPECT_EQ(expert_capacity(1.0, 4, 2, 3), 2);  // 2.67
  EXPECT_EQ(expert_capacity(0.37, 4, 2, 3), 0);
  EXPECT_EQ(expert_capacity(0.375, 4, 2, 3), 1);
  EXPECT_EQ(expert_capacity(0.29, 100, 1, 1), 29);  // in binary a little less than 29
  EXPECT_EQ(expert_capacity(1e300, 4, 2, 3), 4);    // a token takes no expert twice
}

TEST(Capacity, DropsTheLeastProbableOfEachSequence) {
  Hand hand;
  hand.limit(1.0);  // 2 places
  // First sequence: expert 0 has p .50 .60 .45 .20 and keeps the first two; expert 1 has .30 .30 .70, and of
  // the equal ones keeps the lower token. Second: expert 0 has .40 .41 .55 and keeps the last two.
  EXPECT_EQ(hand.kept, (std::vector<std::int32_t>{0, 1, 0, -1, -1, 2, 1, -1, 2, -1, 2, 0, 0, 1, -1, -1}));
  EXPECT_EQ(hand.dropped, 4);
}

TEST(Capacity, TakesWhatDiffersInTheLastDigitsForEqual) {
  Hand hand;
  hand.probabilities[1 * 3 + 1] += 1e-15;  // token 1 for expert 1, as another layout might round it
  hand.limit(1.0);
  EXPECT_EQ(hand.kept[0 * 2 + 1], 1);
  EXPECT_EQ(hand.kept[1 * 2 + 1], -1);
  EXPECT_EQ(hand.dropped, 4);
}

TEST(Capacity, OfOnePlaceKeepsTheMostProbable) {
  Hand hand;
  hand.limit(0.375);
  EXPECT_EQ(hand.kept, (std::vector<std::int32_t>{-1, -1, 0, -1, -1, 2, 1, -1, 2, -1, -1, -1, 0, 1, -1, -1}));
  EXPECT_EQ(hand.dropped, 8);  // padding went nowhere before, and is not counted
}

TEST(Capacity, ThatSufficesDropsNothing) {
  Hand hand;
  hand.limit(1.5);  // 4 places
  EXPECT_EQ(hand.kept, hand.experts);
  EXPECT_EQ(hand.dropped, 0);
}

TEST(Capacity, DropsAsManyWhereTrainingHasGoneWrong) {
  Hand hand;
  hand.probabilities.assign(hand.probabilities.size(), std::numeric_limits<double>::quiet_NaN());
  hand.limit(1.0);
  EXPECT_EQ(hand.dropped, 4);
}

TEST(Capacity, AsksForProbabilities) {
  Routing routing = Hand().routing();
  routing.probabilities = Tensor();
  try {
    const auto self = self_communicator();
    Capacity(1.0).limit(routing, {{}, {}, *self});
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::request);
    EXPECT_NE(std::string(error.what()).find("leaves no probabilities"), std::string::npos) << error.what();
  }
}

// The second of two ranks that share the micro-batch: it drops by what the first one's tokens claim, counts
// its own.
class SecondOfTwo final : public Communicator {
 public:
  explicit SecondOfTwo(const Hand& hand)
      : Communicator(1, 2, "second of two", std::make_shared<TrafficTable>()), hand_(hand) {}
  std::shared_ptr<Communicator> split(const std::vector<int>&, const std::string& name) override {
    return alone(name);
  }
  NodePlace node_place() override { return {}; }

 protected:
  void run_all_gather_rows(const Tensor& in, const Tensor& out) override {
    const std::size_t begin = static_cast<std::size_t>(in.elements());
    if (in.dtype() == DType::int32) {
      std::copy_n(hand_.experts.begin(), begin, out.data<std::int32_t>());
    } else {
      for (std::size_t slot = 0; slot < begin; ++slot)
        out.data<double>()[slot] =
            hand_.probabilities[slot / 2 * 3 + static_cast<std::size_t>(hand_.experts[slot])];
    }
    out.slice(in.dim(0), out.dim(0)).copy_from(in);
  }
  void run_all_reduce(const Tensor&, ReduceOp) override { refuse(); }
  std::unique_ptr<Request::Pending> begin_all_reduce(const Tensor&, ReduceOp) override { return refuse(); }
  void run_reduce_scatter_rows(const Tensor&, const Tensor&) override { refuse(); }
  std::unique_ptr<Request::Pending> begin_all_to_all_rows(const Tensor&, const RowCounts&, const Tensor&,
                                                          const RowCounts&) override {
    return refuse();
  }
  void run_broadcast(const Tensor&, int) override { refuse(); }
  void run_barrier() override { refuse(); }

 private:
  static std::unique_ptr<Request::Pending> refuse() {
    check(false, "SecondOfTwo only gathers rows");
    return nullptr;
  }
  const Hand& hand_;
};

TEST(Capacity, OfASequenceThatLiesOnTwoRanksIsOne) {
  const Hand hand;
  const Routing whole = hand.routing();
  // One sequence of 8: expert 0 has p .50 .60 .45 .20 | .40 .41 .55, expert 1 .30 .30 .70 | .35, expert 2 .40
  // | .50 .50. With 3 places, expert 0 keeps .60 .55 .50, expert 1 .70 .35 and the first .30, expert 2 all.
  Routing half = whole;
  half.experts = whole.experts.slice(4, 8);
  half.probabilities = whole.probabilities.slice(4, 8);
  ModelInput input;
  input.sequences = 1;
  input.length = 8;
  input.first_token = 4;
  SecondOfTwo ranks(hand);
  const Routing limited = Capacity(0.6).limit(half, {{}, input, ranks});  // 3.2
  EXPECT_EQ(limited.experts.to_host<std::int32_t>(), (std::vector<std::int32_t>{2, -1, 2, -1, 0, 1, -1, -1}));
  EXPECT_EQ(dropped_of(limited), 2);
}

}  // namespace
}  // namespace conclave
