// Keys that contradict each other: a table of overrides that make a good recipe impossible, with the words of
// the error.
#include "launch/train/recipe_rules.h"

#include <gtest/gtest.h>

#include "tests/launch/example.h"

namespace conclave {
namespace {

struct Impossible {
  std::vector<std::string> overrides;
  int ranks;
  std::vector<const char*> words;
};

TEST(Validate, AcceptsTheExampleOnEveryCountOfRanksThatDivides) {
  for (const int ranks : {1, 2, 4, 8})
    EXPECT_EQ(request_error([&] { validate_recipe(example_recipe(), ranks); }), "");
}

TEST(Validate, RefusesTheImpossibleWithNumbers) {
  const std::vector<Impossible> table = {
      {{"model.moe.num_experts_per_tok=17"}, 1, {"num_experts_per_tok", "17", "model.moe.num_experts is 16"}},
      {{"model.moe.router.n_group=3"}, 1, {"n_group: 3 does not divide model.moe.num_experts: 16"}},
      {{"model.moe.router.n_group=4", "model.moe.router.topk_group=5"}, 1, {"topk_group: 5", "at most", "4"}},
      {{"model.moe.router.n_group=4", "model.moe.num_experts_per_tok=5"},
       1,
       {"topk_group: 1 groups of 4 experts cannot give a token", "num_experts_per_tok: 5"}},
      {{"model.moe.router.pool={maximum: 8, evaluation: 4}"},
       1,
       {"model.moe.router.pool.minimum", "0 came", "num_experts_per_tok: 2", "maximum: 8"}},
      {{"model.moe.router.pool={minimum: 9, maximum: 8, evaluation: 4}"}, 1, {"pool.minimum", "9 came"}},
      {{"model.moe.router.pool={minimum: 2, maximum: 17, evaluation: 4}"},
       1,
       {"pool.maximum", "17 came", "num_shared_experts together: 16"}},
      {{"model.moe.router.pool={minimum: 2, maximum: 19, evaluation: 4}", "model.moe.num_shared_experts=2"},
       1,
       {"pool.maximum", "19 came", "num_shared_experts together: 18"}},
      {{"model.moe.router.pool={minimum: 2, maximum: 8}"}, 1, {"pool.evaluation", "0 came", "at least"}},
      {{"model.moe.router.pool={minimum: 2, maximum: 8, evaluation: 17}"}, 1, {"pool.evaluation", "17 came"}},
      {{"model.moe.router.pool={minimum: 2}"}, 1, {"pool.maximum", "0 means no pools", "minimum is 2"}},
      {{"model.moe.router.pool={evaluation: 2}"}, 1, {"pool.maximum", "0 means no pools", "evaluation is 2"}},
      {{"model.moe.router.pool={minimum: 2, maximum: 8, evaluation: 4}", "model.moe.router.kind=sigmoid"},
       1,
       {"model.moe.router.pool", "kind: sigmoid", "expected softmax"}},
      {{"model.moe.router.pool={minimum: 2, maximum: 8, evaluation: 4}", "model.moe.router.n_group=2"},
       1,
       {"model.moe.router.pool", "n_group: 2", "expected 1"}},
      {{"model.num_key_value_heads=3"}, 1, {"model.num_key_value_heads", "3", "divisor of 4"}},
      {{"model.head_dim=31"}, 1, {"model.head_dim", "31", "even"}},
      {{"model.moe.first_k_dense_replace=5"}, 1, {"first_k_dense_replace", "5", "4"}},
      {{"model.moe.capacity_factor=0.03"},
       1,
       {"model.moe.capacity_factor: 0.03", "32 assignments", "sequence_length: 256", "num_experts: 16",
        "less than one place", "at least 0.03125"}},
      {{"model.moe.balance.0.first_step=10", "model.moe.balance.0.last_step=9"}, 1, {"last_step", "9", "10"}},
      {{"model.moe.balance.0.balance_batch_size=4"},
       1,
       {"balance.0.balance_batch_size", "4 came with the scope 'global_batch'",
        "belongs to the scope 'group'"}},
      {{"model.moe.balance.0.scope=group"}, 1, {"balance.0.balance_batch_size", "0 came", "at least 1"}},
      {{"model.moe.balance.0.expert_groups=3"},
       1,
       {"balance.0.expert_groups: 3 does not divide model.moe.num_experts: 16"}},
      {{"model.moe.balance.0.expert_groups=32"}, 1, {"expert_groups: 32 does not divide"}},
      {{"model.moe.balance.0.expert_groups=1"}, 1, {"expert_groups: 1 came", "always even", "expected 0"}},
      {{"model.moe.balance=[{scope: group, balance_batch_size: 3}]"},
       1,
       {"training.global_batch_size", "balance.0.balance_batch_size: 3", "multiple of 3"}},
      {{"model.moe.balance=[{scope: group, balance_batch_size: 16}]",
        "training.batch_ramp={start_batch_size: 16, increment: 8, steps_per_increment: 5}"},
       1,
       {"training.batch_ramp.increment", "balance.0.balance_batch_size: 16", "multiple of 16"}},
      {{"model.hidden_size=2147483646", "model.moe.num_experts=2147483647"}, 1, {"model", "2^54"}},
      {{"data.train=[]"}, 1, {"data.train", "no domain"}},
      {{"data.train=[{domain: a}]"},
       1,
       {"override 'data.train=[{domain: a}]'", "data.train.0.path", "this key is missing"}},
      {{"data.train.1={path: data/english, domain: english}"},
       1,
       {"data.train.1.path", "'data/english' came twice for the domain 'english'"}},
      {{"data.validation=[{path: data/english, domain: mean}]"},
       1,
       {"data.validation.0.domain", "'mean' came", "another name"}},
      {{"data.train.1={path: ./data//english, domain: english}"},
       1,
       {"data.train.1.path", "'./data//english' came twice for the domain 'english'"}},
      {{"model.vocab_size=256"}, 1, {"model.vocab_size", "256", "at least 257"}},
      {{"parallel.tensor=3"}, 4, {"parallel.tensor", "3 does not divide 4 ranks"}},
      {{"parallel.tensor=2", "model.qk_norm_over=all_heads"},
       4,
       {"parallel.tensor", "2 came with model.qk_norm_over: all_heads"}},
      {{"model.partial_rotary_factor=0.1"}, 1, {"model.partial_rotary_factor", "3 elements", "even"}},
      {{"parallel.tensor=4", "model.num_key_value_heads=2"},
       4,
       {"parallel.tensor", "num_key_value_heads", "2"}},
      {{"parallel.tensor=4", "model.num_attention_heads=6", "model.num_key_value_heads=2"},
       4,
       {"parallel.tensor", "4 does not divide model.num_attention_heads: 6"}},
      {{"parallel.tensor=4", "model.num_key_value_heads=4", "model.vocab_size=510"},
       4,
       {"parallel.tensor", "4 does not divide model.vocab_size: 510"}},
      {{"parallel.tensor=4", "model.num_key_value_heads=4", "training.micro_batch_size=1",
        "data.sequence_length=250"},
       4,
       {"parallel.tensor", "4 does not divide the tokens of a micro-batch: 250"}},
      {{"parallel.expert=2147483646", "parallel.expert_tensor=2147483646"},
       4,
       {"2147483646 does not divide 4 ranks"}},
      {{"parallel.expert=2", "parallel.dispatcher=all_gather", "parallel.dispatch_rows=64"},
       4,
       {"parallel.dispatch_rows", "64 came with the dispatcher 'all_gather'", "expected 0"}},
      {{"parallel.expert=3"}, 4, {"parallel.expert", "3", "4 ranks"}},
      {{"parallel.expert=32"}, 32, {"parallel.expert", "num_experts"}},
      {{"parallel.expert_tensor=8", "model.moe.moe_intermediate_size=36"},
       8,
       {"moe_intermediate_size", "36"}},
      {{"training.global_batch_size=30", "data.domain_block=0"},
       2,
       {"training.global_batch_size", "30 sequences", "2 data-parallel ranks", "multiple of 8", "24 and 32"}},
      {{}, 3, {"example.yaml:22: training.global_batch_size", "multiple of 12"}},
      {{"data.domain_block=5"}, 1, {"data.domain_block: 5", "multiple of 5", "30 and 35"}},
      {{"training.batch_ramp={start_batch_size: 6, increment: 8, steps_per_increment: 5}"},
       1,
       {"training.batch_ramp.start_batch_size", "6 sequences", "4 and 8"}},
      {{"training.batch_ramp={start_batch_size: 8, increment: 2, steps_per_increment: 5}"},
       1,
       {"training.batch_ramp.increment"}},
      {{"training.batch_ramp={start_batch_size: 8, steps_per_increment: 5}"},
       1,
       {"batch_ramp.increment", "0 came"}},
      {{"training.batch_ramp={start_batch_size: 8, increment: 8}"}, 1, {"steps_per_increment", "0 came"}},
      {{"training.batch_ramp={start_batch_size: 64, increment: 8, steps_per_increment: 5}"},
       1,
       {"start_batch_size", "64", "at most", "32"}},
      {{"training.batch_ramp.increment=8"}, 1, {"start_batch_size", "no ramp"}},
      {{"training.steps=9000000000000000"}, 1, {"training.steps", "more tokens than 64 bits"}},
      {{"optimizer.betas=[0.9]"}, 1, {"optimizer.betas", "1 value came", "two"}},
      {{"optimizer.schedule.decay_steps=10"}, 1, {"decay_steps", "'cosine'", "wsd"}},
      {{"optimizer.schedule={kind: wsd, decay_steps: 290}"}, 1, {"decay_steps", "290", "leaves 280"}},
      {{}, 0, {"0 ranks came"}},
  };
  for (const Impossible& bad : table) {
    const Recipe recipe = parse_recipe(example_text, "example.yaml", bad.overrides);
    const std::string message = request_error([&] { validate_recipe(recipe, bad.ranks); });
    EXPECT_NE(message, "") << "was accepted: " << (bad.overrides.empty() ? "" : bad.overrides[0]);
    for (const char* word : bad.words)
      EXPECT_NE(message.find(word), std::string::npos) << "'" << word << "' is missing from: " << message;
  }
}

TEST(Validate, AcceptsShardsOfOneDomain) {
  const Recipe recipe =
      parse_recipe(example_text, "example.yaml",
                   {"data.train.1.domain=english",
                    "data.validation=[{path: data/a, domain: english}, {path: data/b, domain: english}]"});
  EXPECT_EQ(request_error([&] { validate_recipe(recipe, 1); }), "");
}

TEST(Validate, HoldsRecipesBuiltInCodeToTheSameRules) {
  Recipe recipe = example_recipe();
  recipe.data.train[1].weight = -1;
  EXPECT_NE(request_error([&] { validate_recipe(recipe, 1); }).find("data.train.1.weight: -1 came"),
            std::string::npos);
  recipe = example_recipe();
  recipe.training.micro_batch_size = 0;
  EXPECT_NE(request_error([&] { validate_recipe(recipe, 1); }).find("training.micro_batch_size: 0"),
            std::string::npos);
}

TEST(Validate, AcceptsABatchRamp) {
  Recipe recipe = example_recipe();
  recipe.training.batch_ramp = {.start_batch_size = 8, .increment = 8, .steps_per_increment = 10};
  EXPECT_EQ(request_error([&] { validate_recipe(recipe, 2); }), "");
}

TEST(Warnings, NameWhatIsAcceptedAndNotActedOn) {
  Recipe recipe = example_recipe();
  EXPECT_TRUE(warnings(recipe).empty());
  recipe.data.validation.clear();
  EXPECT_EQ(warnings(recipe), std::vector<std::string>{
                                  "data.validation is empty: this run measures no loss on held-out text."});

  Recipe pools = example_recipe();
  pools.model.moe.router.pool = {.minimum = 2, .maximum = 16, .evaluation = 8};
  EXPECT_TRUE(warnings(pools).empty());
  pools.model.moe.balance.push_back({.scope = BalanceScope::sequence});
  pools.data.document_mask = false;
  ASSERT_EQ(warnings(pools).size(), 2u);
  EXPECT_EQ(warnings(pools)[0],
            "model.moe.balance.1.scope: sequence balances the experts of few documents, each of which "
            "model.moe.router.pool keeps to a few experts; expected a wider scope, data_parallel or "
            "global_batch.");
  EXPECT_EQ(warnings(pools)[1],
            "data.document_mask: false makes each sequence one document, and model.moe.router.pool gives it "
            "one pool.");

  Recipe narrow = example_recipe();
  narrow.model.moe.balance[0].scope = BalanceScope::micro_batch;
  EXPECT_TRUE(warnings(narrow).empty());  // the default estimator was just left there
  narrow.model.moe.balance[0].estimator = Estimator::exact;
  EXPECT_EQ(warnings(narrow),
            std::vector<std::string>{"model.moe.balance.0.estimator: exact belongs to the scope global_batch "
                                     "and does nothing for micro_batch, whose counts are known in time."});
}

TEST(Warnings, SayThatNoTextTrainsARouterWhoseWeightIsAlwaysOne) {
  Recipe recipe = example_recipe();
  recipe.model.moe.num_experts_per_tok = 1;
  recipe.model.moe.router.norm_topk_prob = true;
  for (const RouterKind kind : {RouterKind::softmax, RouterKind::sigmoid}) {
    recipe.model.moe.router.kind = kind;
    ASSERT_EQ(warnings(recipe).size(), 1u) << kind;
    EXPECT_EQ(warnings(recipe)[0],
              "model.moe.num_experts_per_tok: 1 with model.moe.router.norm_topk_prob: true makes the weight "
              "of a token's expert a constant, so the language-model loss trains no router. The "
              "routers' only gradients come from model.moe.balance.0, model.moe.router.z_loss_coefficient, "
              "which do "
              "not know which expert suits a token. Expected norm_topk_prob: false, where the weight "
              "is the expert's probability, or more experts per token.");
  }
  Recipe bare = recipe;
  bare.model.moe.balance[0].coefficient = 0;
  bare.model.moe.router.z_loss_coefficient = 0;
  ASSERT_EQ(warnings(bare).size(), 1u);
  EXPECT_NE(warnings(bare)[0].find("No other loss trains them either"), std::string::npos);

  // A softmax over one expert is 1 as well.
  Recipe pool = recipe;
  pool.model.moe.router = {.norm_topk_prob = false, .pool = {.minimum = 1, .maximum = 1, .evaluation = 1}};
  ASSERT_EQ(warnings(pool).size(), 1u);
  EXPECT_NE(warnings(pool)[0].find("model.moe.router.pool.maximum: 1"), std::string::npos);
  pool.model.moe.router.pool.maximum = 2;
  EXPECT_TRUE(warnings(pool).empty());

  Recipe trained = recipe;  // by the text too
  trained.model.moe.router.norm_topk_prob = false;
  EXPECT_TRUE(warnings(trained).empty());
  trained = recipe;
  trained.model.moe.num_experts_per_tok = 2;
  EXPECT_TRUE(warnings(trained).empty());
  trained = recipe;  // without experts
  trained.model.moe.first_k_dense_replace = trained.model.num_hidden_layers;
  EXPECT_TRUE(warnings(trained).empty());
}

}  // namespace
}  // namespace conclave
