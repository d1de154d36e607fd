// What the configurations of single architectures can ask for and Conclave's model does not have: each is
// refused by a sentence that names the key, what came and what was expected.
#include "framework/data/tokenizer.h"
#include "tests/launch/convert_models.h"

namespace conclave {
namespace {

struct Case {
  const char* architecture;
  Json changes;  // a merge patch: null takes a key out
  std::vector<std::string> words;
};

TEST(ArchitectureConfigs, ThatConclaveCannotComputeAreASentence) {
  const std::vector<Case> table = {
      {"granitemoe", {{"logits_scaling", -1}}, {"logits_scaling: -1", "more than 0"}},
      {"granitemoe",
       {{"num_local_experts", 2147483647}},
       {"2147483647 experts", "output_linear.weight is [8, 32, 16]"}},
      {"granitemoe", {{"intermediate_size", 17}}, {"input_linear.weight is [8, 32, 32] and not [8, 34, 32]"}},
      {"granitemoeshared",
       {{"shared_intermediate_size", 17}},
       {"shared_intermediate_size is 17", "multiple"}},
      {"minimax_m2",
       {{"partial_rotary_factor", 0.25}},
       {"rotary_dim is 4", "partial_rotary_factor is 0.25", "both tell the same thing"}},
      {"minimax_m2", {{"rope_theta", nullptr}}, {"rope_theta is missing"}},
      {"minimax_m2", {{"scoring_func", "softmax"}}, {"scoring_func", "expected \"sigmoid\""}},
      {"minimax_m2", {{"use_qk_norm", false}}, {"use_qk_norm: false", "expected true"}},
      {"minimax_m2", {{"qk_norm_type", "per_head"}}, {"per_head", "over all heads"}},
      {"minimax_m2", {{"shared_intermediate_size", 16}}, {"shared_intermediate_size: 16", "expected 0"}},
      {"dots1",
       {{"sliding_window", nullptr}, {"max_window_layers", 1}},
       {"sliding_window is not there", "4096"}},
      {"dots1", {{"n_shared_experts", 0}}, {"n_shared_experts: 0"}},
      {"dots1", {{"partial_rotary_factor", 0.5}}, {"turns whole heads"}},
      {"solar_open", {{"first_k_dense_replace", 1}}, {"first_k_dense_replace: 1", "expected 0"}},
      {"solar_open", {{"use_qk_norm", true}}, {"use_qk_norm: true", "expected false"}},
      {"solar_open", {{"rope_theta", nullptr}}, {"rope_theta is missing"}},
      {"deepseek", {{"moe_layer_freq", 2}}, {"moe_layer_freq: 2", "come first"}},
      {"deepseek", {{"scoring_func", "sigmoid"}}, {"scoring_func", "expected \"softmax\""}},
      {"conclave", {{"qk_norm", "each"}}, {"qk_norm is each", "none, head or all_heads"}},
      {"conclave", {{"scoring_func", "tanh"}}, {"scoring_func is tanh", "softmax or sigmoid"}},
  };
  for (const Case& one : table) {
    SCOPED_TRACE(join_text(one.architecture, " ", one.changes.dump()));
    const ScratchDirectory scratch;
    save(recipe_for(one.architecture), scratch.path() / "run");
    const fs::path directory = scratch.path() / "exported";
    export_model(
        {.checkpoint = scratch.path() / "run", .directory = directory, .architecture = one.architecture},
        silent);
    Json config = json_of(directory / "config.json");
    config.merge_patch(one.changes);
    put(directory / "config.json", config);
    expect_words(
        sentence_of(Fault::data,
                    [&] { import_model({.directory = directory, .run = scratch.path() / "back"}, silent); }),
        one.words);
    EXPECT_FALSE(fs::exists(scratch.path() / "back"));
  }
}

// The released models tell by rotary_dim what transformers 5 tells by partial_rotary_factor.
TEST(ArchitectureConfigs, EitherSpellingTellsHowFarMiniMaxTurns) {
  const ScratchDirectory scratch;
  save(recipe_for("minimax_m2"), scratch.path() / "run");
  const fs::path directory = scratch.path() / "exported";
  export_model({.checkpoint = scratch.path() / "run", .directory = directory}, silent);
  const Json config = json_of(directory / "config.json");
  int i = 0;
  for (const Json& changes :
       {Json{{"rotary_dim", 6}}, Json{{"rotary_dim", nullptr}, {"partial_rotary_factor", 0.75}},
        Json{{"rotary_dim", 6}, {"partial_rotary_factor", 0.75}}}) {
    Json changed = config;
    changed.merge_patch(changes);
    put(directory / "config.json", changed);
    const fs::path run = scratch.path() / ("back" + std::to_string(++i));
    EXPECT_EQ(import_model({.directory = directory, .run = run}, silent).model.partial_rotary_factor, 0.75);
  }
}

}  // namespace
}  // namespace conclave
