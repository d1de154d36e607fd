// Upcycling of dense models: the loss stays where it was wherever it can.
#include "framework/autograd/ops/elementwise.h"
#include "tests/launch/convert_models.h"

namespace conclave {
namespace {

/// Cross-entropy of one batch by the newest checkpoint of a run.
double loss_of(const fs::path& run) {
  const CheckpointReader checkpoint(*find_checkpoint(run).path);
  const Recipe recipe = recipe_of(checkpoint);
  Model model(recipe);
  load_model(checkpoint, model);
  Recipe data = test::tiny_recipe();
  data.model.vocab_size = recipe.model.vocab_size;
  const ModelInput input = to_device(test::synthetic_batch(data, 0, 0, 4));
  Tape tape(Tape::Mode::forward_only);
  const Transformer::Result result = model.transformer.forward(tape, input);
  return model.transformer.loss(tape, result.hidden, input, {.loss_scale = 0.05}).objective.value.item();
}

TEST(Upcycle, LeavesTheLossWhereItWas) {
  const ScratchDirectory scratch;
  Recipe recipe = recipe_for("qwen3");
  recipe.training.precision = NumberFormat::fp64;
  save(recipe, scratch.path() / "dense");
  const fs::path directory = scratch.path() / "exported";
  export_model({.checkpoint = scratch.path() / "dense", .directory = directory}, silent);
  const std::vector<std::string> wide = {"training.precision=fp64"};
  import_model({.directory = directory, .run = scratch.path() / "same", .overrides = wide}, silent);
  const double dense = loss_of(scratch.path() / "same");

  struct Case {
    UpcycleOptions options;
    const char* change;  // of the recipe; empty: none
    bool equal;
  };
  constexpr const char *not_renormalised = "model.moe.router.norm_topk_prob=false",
                       *sigmoid = "model.moe.router.kind=sigmoid",
                       *scaled = "model.moe.router.routed_scaling_factor=2.5";
  const std::vector<Case> table = {
      {{.kind = Kind::copy, .experts = 4, .top_k = 1}, "", true},
      {{.kind = Kind::copy, .experts = 4, .top_k = 2}, "", true},
      {{.kind = Kind::copy, .experts = 4, .top_k = 3}, sigmoid, true},
      {{.kind = Kind::copy, .experts = 4, .top_k = 4}, not_renormalised, true},
      {{.kind = Kind::copy, .experts = 4, .top_k = 2, .router_range = 0}, not_renormalised, true},
      {{.kind = Kind::copy, .experts = 4, .top_k = 2}, not_renormalised, false},
      {{.kind = Kind::copy, .experts = 4, .top_k = 2}, scaled, true},
      {{.kind = Kind::split, .experts = 4, .top_k = 4}, "", true},
      {{.kind = Kind::split, .experts = 8, .top_k = 4}, "", true},
      {{.kind = Kind::split, .experts = 12, .top_k = 6, .parts = 3}, "", true},
      {{.kind = Kind::split, .experts = 12, .top_k = 6, .parts = 3, .router_range = 0}, sigmoid, true},
      {{.kind = Kind::split, .experts = 8, .top_k = 4, .parts = 8}, "", false},
      {{.kind = Kind::split, .experts = 8, .top_k = 3, .parts = 2}, "", false},
  };
  for (std::size_t i = 0; i < table.size(); ++i) {
    const fs::path run = scratch.path() / ("upcycled" + std::to_string(i));
    std::vector<std::string> overrides = wide;
    if (*table[i].change != 0) overrides.emplace_back(table[i].change);
    const Recipe made = import_model(
        {.directory = directory, .run = run, .overrides = overrides, .upcycle = table[i].options}, silent);
    EXPECT_EQ(made.model.moe.num_experts, table[i].options.experts);
    EXPECT_EQ(made.model.moe.first_k_dense_replace, 0);
    const double difference = std::abs(loss_of(run) / dense - 1);
    if (table[i].equal)
      EXPECT_LT(difference, 1e-12) << "case " << i;
    else
      EXPECT_GT(difference, 1e-7) << "case " << i;
    RecordProperty("case_" + std::to_string(i), std::to_string(difference * 1e15) + "e-15");
  }
}

TEST(Upcycle, RefusesWhatDoesNotDivide) {
  const ModelRecipe dense = recipe_for("qwen3").model;
  const auto refused = [&](const UpcycleOptions& options) {
    return sentence_of(Fault::request, [&] { parts_of(options, dense); });
  };
  expect_words(refused({.kind = Kind::copy}), {"--experts 0"});
  expect_words(refused({.kind = Kind::copy, .experts = 2, .top_k = 4}), {"--top-k 4"});
  expect_words(refused({.kind = Kind::copy, .experts = 4, .top_k = 2, .parts = 2}), {"--parts 2", "split"});
  expect_words(refused({.kind = Kind::split, .experts = 6, .top_k = 4}), {"6 experts", "multiple of 4"});
  expect_words(refused({.kind = Kind::split, .experts = 10, .top_k = 5}),
               {"intermediate_size: 48", "5 parts"});
}

}  // namespace
}  // namespace conclave
