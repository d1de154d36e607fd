// The profile of steps: kernels fall to the layer, purpose and phase that called for them, in backward too;
// the profile changes no result; the table adds up and the trace is JSON of Chrome's format.
#include "launch/train/step_profile.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/launch/synthetic_trainer.h"

namespace conclave {
namespace {

using Phase = Profile::Phase;

Recipe recipe_with(Recompute recompute) {
  Recipe recipe = test::tiny_recipe();
  recipe.model.moe.first_k_dense_replace = 1;
  recipe.training.recompute = recompute;
  return recipe;
}

/// "LAYER PURPOSE KERNEL" of what has been called in a phase.
std::set<std::string> calls_in(const Profile& profile, Phase phase) {
  std::set<std::string> calls;
  for (const auto& [key, sum] : profile.sums())
    if (key.phase == phase && key.kind == Profile::Kind::kernel)
      calls.insert(join_text(profile.layers()[static_cast<std::size_t>(key.place.layer)], " ",
                             key.place.purpose, " ", key.what));
  return calls;
}

TEST(StepProfile, KernelsFallToTheirLayerPurposeAndPhase) {
  for (const Recompute recompute : {Recompute::none, Recompute::block}) {
    const Recipe recipe = recipe_with(recompute);
    Mesh plain_mesh(self_communicator(), {}), mesh(self_communicator(), {});
    Trainer plain(recipe, plain_mesh, test::synthetic_batches(recipe)),
        trainer(recipe, mesh, test::synthetic_batches(recipe));
    Profile profile;
    for (int step = 0; step < 2; ++step) {
      const double expected = plain.step().loss;
      const Profile::Recording recording(profile);
      EXPECT_EQ(trainer.step().loss, expected) << "looking changes nothing";
    }
    const auto forward = calls_in(profile, Phase::forward), backward = calls_in(profile, Phase::backward),
               again = calls_in(profile, Phase::recompute), other = calls_in(profile, Phase::other);
    for (const char* call :
         {"model.embed_tokens  embedding", "model.layers.0 attention attention", "model.layers.0 mlp swiglu",
          "model.layers.1 router route", "model.layers.1 permutation sort_by_expert",
          "model.layers.1 experts grouped_linear", "model.layers.1 shared_experts swiglu",
          "model.norm  rms_norm", "lm_head  cross_entropy_statistics"})
      EXPECT_EQ(forward.count(call), 1u) << call;
    for (const char* call :
         {"model.embed_tokens  embedding_backward", "model.layers.0 attention attention_backward",
          "model.layers.0 mlp swiglu_backward", "model.layers.1 router route_backward",
          "model.layers.1 permutation combine_rows_backward", "model.layers.1 experts grouped_linear_dweight",
          "model.norm  rms_norm_backward"})
      EXPECT_EQ(backward.count(call), 1u) << call;
    EXPECT_EQ(again.count("model.layers.1 experts grouped_linear"), recompute == "block" ? 1u : 0u);
    EXPECT_EQ(other.count("  adamw"), 1u);
  }
}

TEST(StepProfile, CountsWhatAProductMovesAndComputes) {
  Profile profile;
  const Tensor a = Tensor::zeros({3, 5}, DType::float32), b = Tensor::zeros({7, 5}, DType::float32),
               c = Tensor::zeros({3, 7}, DType::float32);
  {
    const Profile::Recording recording(profile);
    const ProfileLayer layer("a layer");
    kernels_of(a).gemm(a, Transpose::no, b, Transpose::yes, c, Write::accumulate);
  }
  kernels_of(a).gemm(a, Transpose::no, b, Transpose::yes, c, Write::overwrite);  // nobody looks
  ASSERT_EQ(profile.sums().size(), 1u);
  const Profile::Sum& sum = profile.sums().begin()->second;
  EXPECT_EQ(sum.calls, 1);
  EXPECT_EQ(sum.operations, 2 * 3 * 5 * 7);
  EXPECT_EQ(sum.bytes, 4 * (3 * 5 + 7 * 5 + 2 * 3 * 7));
  EXPECT_GT(sum.seconds, 0);
}

TEST(StepProfile, WritesATableThatAddsUpAndATraceThatParses) {
  const Recipe recipe = recipe_with(Recompute::none);
  Mesh mesh(self_communicator(), {});
  Trainer trainer(recipe, mesh, test::synthetic_batches(recipe));
  Profile profile;
  profile.keep_events(100);
  double seconds = 0;
  constexpr int steps = 5;
  for (int step = 0; step < steps; ++step) {
    const auto begin = Profile::Clock::now();
    {
      const Profile::Recording recording(profile);
      trainer.step();
    }
    seconds += std::chrono::duration<double>(Profile::Clock::now() - begin).count();
  }
  const std::string table = profile_table(profile, steps, seconds / steps, {1e11, 1e10});
  // The shares of all places and of the time between kernels make the step.
  double shares = 0;
  std::istringstream lines(table.substr(0, table.find("\nLimits")));
  for (std::string line; std::getline(lines, line);)
    if (line.ends_with(" %")) shares += std::stod(line.substr(line.size() - 10));
  EXPECT_NEAR(shares, 100, 2) << table;
  EXPECT_NE(table.find("grouped_linear_dweight"), std::string::npos);

  const auto trace = nlohmann::json::parse(trace_events(profile, 3, Profile::Clock::now()));
  EXPECT_EQ(profile.events().size(), 100u);
  ASSERT_EQ(trace.size(), 103u);  // and three names
  EXPECT_EQ(trace[3]["ph"], "X");
  EXPECT_EQ(trace[3]["pid"], 3);
  EXPECT_GT(trace[3]["dur"].get<double>(), 0);
  EXPECT_EQ(trace[0]["args"]["name"], "rank 3");
}

}  // namespace
}  // namespace conclave
