// The facts of experts that the command says and keeps: capacities, pools by document, loads of ranks and
// experts without tokens.
#include <algorithm>

#include "framework/store/expert_history.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

TEST_F(Command, ACapacitySaysWhatItDropped) {
  // 8 places for each of 4 experts in a sequence of 32 tokens, which makes 64 assignments: half of them go.
  const Outcome outcome = train("capacity", "model.moe.capacity_factor=0.5 training.steps=2", 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  std::int64_t steps = 0;
  for (const Json& line : metrics("capacity")) {
    if (line.contains("split")) continue;
    ++steps;
    EXPECT_GE(line["dropped_assignments"].get<std::int64_t>(), 2 * 8 * 32);  // layers, sequences
    EXPECT_LT(line["dropped_assignments"].get<std::int64_t>(), 2 * 8 * 64);
  }
  EXPECT_EQ(steps, 2);
  EXPECT_EQ(conclave_command("generate " + path("capacity") + " --prompt 1 --tokens 3").exit_code, 0);

  const Outcome refused = train("none", "model.moe.capacity_factor=0.05");
  EXPECT_EQ(refused.exit_code, 2) << refused.output;
  EXPECT_NE(refused.output.find("model.moe.capacity_factor"), std::string::npos) << refused.output;
}

TEST_F(Command, PoolsOfDocumentsTrainAndAreMeasuredWithTheirOwnSize) {
  const std::string overrides =
      "'model.moe.router.pool={minimum: 2, maximum: 3, evaluation: 2}' model.num_key_value_heads=2 "
      "parallel.tensor=2 parallel.sequence=true training.steps=4 evaluation.batches=0";
  const Outcome outcome = train("pools", overrides, 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  // On one rank held-out losses are those of the run on two, and with another size they are others.
  const Json measured = parse_json(conclave_command("evaluate --json " + path("pools")).output);
  int domains = 0;
  for (const Json& line : metrics("pools"))
    for (const Json& domain : measured["domains"])
      if (line.value("split", "") == "validation" && line["step"] == 4 &&
          line["domain"] == domain["domain"]) {
        EXPECT_NEAR(line["lm_loss"].get<double>(), domain["lm_loss"].get<double>(), 1e-5);
        ++domains;
      }
  EXPECT_EQ(domains, static_cast<int>(measured["domains"].size()));
  const auto loss_with = [&](const std::string& change) {
    const Outcome evaluated = conclave_command("evaluate " + path("pools") + " " + change);
    EXPECT_EQ(evaluated.exit_code, 0) << evaluated.output;
    return evaluated.output;
  };
  const std::string as_trained = loss_with("");
  EXPECT_EQ(loss_with("model.moe.router.pool.evaluation=2"), as_trained);
  EXPECT_NE(loss_with("model.moe.router.pool.evaluation=4"), as_trained);
  EXPECT_NE(loss_with("data.document_mask=false"), as_trained);
  EXPECT_EQ(conclave_command("generate " + path("pools") + " --prompt 1 --tokens 3").exit_code, 0);

  const Outcome exported = conclave_command("export " + path("pools") + " " + path("exported"));
  EXPECT_EQ(exported.exit_code, 0) << exported.output;
  EXPECT_NE(exported.output.find("The pools of experts by document are left out"), std::string::npos)
      << exported.output;

  const Outcome refused =
      train("no-pools", "'model.moe.router.pool={minimum: 1, maximum: 3, evaluation: 2}'");
  EXPECT_EQ(refused.exit_code, 2) << refused.output;
  EXPECT_NE(refused.output.find("model.moe.router.pool.minimum: 1 came"), std::string::npos)
      << refused.output;
}

TEST_F(Command, TheLoadOfExpertRanksIsLogged) {
  ASSERT_EQ(train("loads", "parallel.expert=2", 2).exit_code, 0);
  const ExpertHistory history = read_expert_history(folder_ / "loads" / "experts.h5");
  EXPECT_EQ(history.expert_ranks, 2);
  ASSERT_EQ(history.load_per_expert_rank.size(), 10u * 2 * 2);
  std::size_t step = 0;
  for (const Json& line : metrics("loads")) {
    if (line.contains("split")) continue;
    double worst = 0, loss = 0;
    for (std::size_t layer = 0; layer < 2; ++layer) {
      const std::size_t row = step * 2 + layer;
      const std::int64_t first = history.load_per_expert_rank[row * 2],
                         second = history.load_per_expert_rank[row * 2 + 1];
      EXPECT_EQ(first, history.counts[row * 4] + history.counts[row * 4 + 1]);
      EXPECT_EQ(first + second, 8 * 32 * 2);
      worst = std::max(worst, static_cast<double>(std::max(first, second)) / (8 * 32) - 1);
      loss += history.layer_balance_loss[row] / 2;
    }
    EXPECT_NEAR(line["max_rank_load_violation"].get<double>(), worst, 1e-12);
    EXPECT_NEAR(line["load_balance_loss"].get<double>(), loss, 1e-12);
    ++step;
  }
  EXPECT_EQ(step, 10u);
  // Going on with other ranks: nobody has to throw the history away.
  ASSERT_EQ(train("loads", "training.steps=12", 1).exit_code, 0);
  const ExpertHistory alone = read_expert_history(folder_ / "loads" / "experts.h5");
  EXPECT_EQ(alone.load_per_expert_rank, std::vector<std::int64_t>(12 * 2, 8 * 32 * 2));
}

TEST_F(Command, AnExpertWithoutTokensIsNamed) {
  const Outcome outcome = train("dead",
                                "training.steps=8 logging.dead_expert_steps=4 model.initializer_range=1e-30 "
                                "model.moe.num_experts_per_tok=1 optimizer.lr=1e-12");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("Expert 3 of block 1 has had no token for 4 steps."), std::string::npos)
      << outcome.output;
}

}  // namespace
}  // namespace conclave
