#include "launch/tools/convert/extract.h"

#include <algorithm>

#include "framework/store/durable_file.h"
#include "launch/tools/convert/expert_choice.h"
#include "launch/tools/convert/first_checkpoint.h"
#include "launch/tools/convert/json_file.h"
#include "launch/tools/convert/source_facts.h"
#include "launch/train/job.h"
#include "launch/train/model.h"
#include "launch/train/model_size.h"
#include "launch/train/recipe_rules.h"
#include "launch/train/recipe_text.h"
#include "layers/moe/recipe.h"
#include "parallel/agreement.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

/// Some entries of dim 0, in this order.
template <class T>
std::vector<T> entries_of_dim0(const std::vector<T>& values, std::int64_t entries,
                               const std::vector<std::int32_t>& kept) {
  const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(values.size()) / entries;
  std::vector<T> some;
  some.reserve(kept.size() * static_cast<std::size_t>(size));
  for (const std::int32_t entry : kept)
    some.insert(some.end(), values.begin() + entry * size, values.begin() + (entry + 1) * size);
  return some;
}

/// The layer with experts, counted from 0, of a parameter that has an entry for each expert; else -1.
std::int64_t expert_layer_of(const std::string& name, const ModelRecipe& model) {
  const std::string start = "model/model.layers.";
  if (!name.starts_with(start)) return -1;
  if (!name.ends_with(".mlp.gate.weight") && name.find(".mlp.experts.") == std::string::npos) return -1;
  const std::vector<std::int64_t> blocks = moe_blocks(model);
  const auto found = std::find(blocks.begin(), blocks.end(), std::stoll(name.substr(start.size())));
  return found - blocks.begin();
}

template <class T>
void write_tensors(const CheckpointReader& source, const ModelRecipe& model,
                   const std::vector<LayerChoice>& choices, const OptimizerRecipe& optimizer,
                   CheckpointStream& stream) {
  const std::vector<NamedState> states = states_at_beginning(optimizer, dtype_of<T>());
  for (const std::string& name : source.names("model")) {
    const std::vector<T> values = source.read_all<T>(name);
    Dims dims = source.describe(name).dims;
    const std::int64_t layer = expert_layer_of(name, model);
    if (layer < 0) {
      add_first(stream, states, name, dims, values);
      continue;
    }
    const std::vector<std::int32_t>& kept = choices.at(static_cast<std::size_t>(layer)).experts;
    const std::vector<T> some = entries_of_dim0(values, dims[0], kept);
    dims[0] = static_cast<std::int64_t>(kept.size());
    add_first(stream, states, name, dims, some);
  }
}

/// Writes the state that routers keep of the kept experts.
void write_router_state(const CheckpointReader& source, const std::string& name, const ModelRecipe& model,
                        const std::vector<LayerChoice>& choices, CheckpointStream& stream) {
  if (!source.contains(name)) return;
  const std::vector<double> all = source.read_all<double>(name);
  const auto experts = static_cast<std::ptrdiff_t>(model.moe.num_experts);
  std::vector<double> kept;
  for (std::size_t layer = 0; layer < choices.size(); ++layer)
    for (const std::int32_t expert : choices[layer].experts)
      kept.push_back(all[static_cast<std::size_t>(static_cast<std::ptrdiff_t>(layer) * experts + expert)]);
  const auto layers = static_cast<std::int64_t>(choices.size());
  stream.add(name, ElementType::float64, {layers, static_cast<std::int64_t>(kept.size()) / layers},
             kept.data());
}

/// Where the experts come from.
Json account_of(const ExtractOptions& options, const Recipe& recipe,
                const std::vector<LayerChoice>& choices) {
  Json json{{"source", options.checkpoint.string()},
            {"domain", options.domain},
            {"calibration", options.calibrate_on_training ? "train" : "validation"},
            {"sequences", options.sequences},
            {"source_experts", recipe.model.moe.num_experts},
            {"experts", options.experts},
            {"layers", Json::array()}};
  const std::vector<std::int64_t> blocks = moe_blocks(recipe.model);
  for (std::size_t layer = 0; layer < choices.size(); ++layer)
    json["layers"].push_back(
        {{"block", blocks[layer]}, {"experts", choices[layer].experts}, {"scores", choices[layer].scores}});
  return json;
}

void check_request(const ExtractOptions& options, const Recipe& recipe) {
  const MoeRecipe& moe = recipe.model.moe;
  check(count_moe_layers(recipe.model) > 0, Fault::request, options.checkpoint.string(),
        " is a dense model; there are no experts to extract");
  check(std::holds_alternative<LinearScoreRecipe>(moe.router.score), Fault::request,
        options.checkpoint.string(), " has routers with model.moe.router.score: cosine; experts can be ",
        "extracted from models whose routers score linearly alone");
  check(moe.router.vocabulary.visible == 0, Fault::request, options.checkpoint.string(),
        " has model.moe.router.vocabulary.visible: ", moe.router.vocabulary.visible,
        "; where tokens have experts by their ids, some would be left without any, so none can be extracted");
  check(options.experts >= 1 && options.experts <= moe.num_experts, Fault::request, "--experts ",
        options.experts, " came; the layers have ", moe.num_experts, " routed experts, expected 1 to ",
        moe.num_experts);
  check_place_of_run(options.run);
}

/// Rules of the whole model that the smaller one does not have.
void say_what_ends(const MoeRecipe& whole, const MoeRecipe& smaller,
                   const std::function<void(const std::string&)>& say) {
  if (smaller.router.n_group != whole.router.n_group)
    say("Groups of experts (model.moe.router.n_group) end here: the kept ones are chosen among freely.");
  if (smaller.num_experts_per_tok != whole.num_experts_per_tok)
    say(join_text("model.moe.num_experts_per_tok becomes ", smaller.num_experts_per_tok, " instead of ",
                  whole.num_experts_per_tok, ", as no more experts are kept."));
  if (smaller.router.pool != whole.router.pool)
    say("Pools of experts by document (model.moe.router.pool) end here: the kept experts are one for all.");
  if (smaller.capacity_factor != whole.capacity_factor)
    say("The capacity of experts (model.moe.capacity_factor) ends here.");
  if (smaller.balance != whole.balance)
    say("Balance terms over groups of experts (expert_groups in model.moe.balance) end here.");
}

/// The recipe of a run of the smaller model.
Recipe smaller_recipe(const Recipe& recipe, const ExtractOptions& options) {
  Recipe smaller = recipe;
  smaller.model = with_experts(recipe.model, options.experts);
  smaller.name = join_text(recipe.name, "-", options.domain, "-", options.experts);
  smaller.output = options.run.string();
  smaller.checkpoint.initialize_from.clear();
  validate_recipe(smaller, 1);
  return smaller;
}

void write_run(const ExtractOptions& options, const CheckpointReader& source, const Recipe& recipe,
               const Recipe& smaller, const std::vector<LayerChoice>& choices) {
  const Json account = account_of(options, recipe, choices);
  check_place_of_run(options.run);  // once more, after a while
  make_directories(options.run);
  try {
    const bool wide = recipe.training.precision == NumberFormat::fp64;
    check_free_space(options.run, static_cast<std::size_t>(count_parameters(smaller.model).total()) *
                                      (wide ? sizeof(double) : sizeof(float)));
    CheckpointStream stream(options.run / "checkpoints", 0);
    if (wide)
      write_tensors<double>(source, recipe.model, choices, smaller.optimizer, stream);
    else
      write_tensors<float>(source, recipe.model, choices, smaller.optimizer, stream);
    const FeedForwards feed_forwards(recipe.model);
    for (const MethodState& state : feed_forwards.states().all)
      write_router_state(source, state.name, recipe.model, choices, stream);
    Attributes attributes = first_attributes(smaller);
    attributes["extracted"] = account.dump();
    if (source.has(source_attribute)) attributes[source_attribute] = source.text(source_attribute);
    stream.commit(attributes);
    // Last, so that nobody trains by a recipe that has no checkpoint beside it.
    write_json(options.run / "extracted.json", account);
    write_text_durably(options.run / "recipe.yaml", to_yaml(smaller));
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(options.run, ignored);  // it was not there, or empty
    throw;
  }
}

}  // namespace

Recipe extract_experts(const ExtractOptions& asked, Communicator& world,
                       const std::function<void(const std::string&)>& say) {
  ExtractOptions options = asked;
  std::unique_ptr<CheckpointReader> source;
  Recipe recipe, smaller;
  std::vector<Batch> text;
  agree(world, [&] {
    source = std::make_unique<CheckpointReader>(options.checkpoint, Verify::nothing);
    recipe = recipe_of(*source);
    const ModelRecipe model = recipe.model;
    const std::string place = recipe.output;
    for (const std::string& change : options.overrides) apply_override(recipe, change);
    check(recipe.model == model, Fault::request,
          "key.path=value changes what the weights mean; of model, nothing can be changed while extracting");
    recipe.parallel = {};  // every rank holds the whole model
    if (options.run.empty()) {
      std::string name = join_text("-", options.domain, "-", options.experts);
      std::replace(name.begin(), name.end(), '/', '_');
      options.run = (recipe.output != place ? fs::path(recipe.output) : fs::path(place + name));
    }
    check_request(options, recipe);
    smaller = smaller_recipe(recipe, options);
    text = text_of_domain(options.calibrate_on_training ? recipe.data.train : recipe.data.validation, recipe,
                          options.domain, options.sequences, world.rank(), world.size());
  });
  say_what_ends(recipe.model.moe, smaller.model.moe, say);
  Device& device = choose_device(world, recipe.training.device);
  choose_threads(world, recipe.training.threads);
  const std::vector<LayerChoice> choices =
      choose_experts(*source, recipe, options.experts, text, world, device, say);
  agree(world, [&] {
    if (world.rank() == 0) write_run(options, *source, recipe, smaller, choices);
  });
  return smaller;
}

}  // namespace conclave
