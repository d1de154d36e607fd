#include "launch/tools/convert/import.h"

#include <algorithm>
#include <map>
#include <set>

#include "framework/base/error.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/durable_file.h"
#include "framework/store/json_text.h"
#include "framework/store/lookup.h"
#include "launch/tools/convert/first_checkpoint.h"
#include "launch/tools/convert/hub_directory.h"
#include "launch/tools/convert/imported_tokenizer.h"
#include "launch/tools/convert/origin.h"
#include "launch/tools/convert/source_facts.h"
#include "launch/tools/convert/windows.h"
#include "launch/train/model.h"
#include "launch/train/model_size.h"
#include "launch/train/recipe_rules.h"
#include "launch/train/recipe_text.h"
#include "layers/moe/methods/selection_bias.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

using Say = std::function<void(const std::string&)>;

/// Puts the model's own facts over those of a recipe: losses, initialisation, selection bias.
void read_model(const Origin& origin, const ConfigReader& config, ModelRecipe& model) {
  model.moe.num_shared_experts = 0;
  set_dense_blocks(model, {});
  if (origin.architecture.has_experts) {  // else routers are the recipe's to choose
    const RouterRecipe plain;
    RouterRecipe& router = model.moe.router;
    router.kind = plain.kind;
    router.routed_scaling_factor = plain.routed_scaling_factor;
    router.n_group = plain.n_group;
    router.topk_group = plain.topk_group;
  }
  read_common_config(config, model);
  origin.read_config(config, model);
}

/// Says which things transformers does in training, and Conclave does not.
void say_what_training_leaves_out(const ConfigReader& config, const Say& say) {
  for (const char* key : {"attention_dropout", "router_jitter_noise"})
    if (config.real_or(key, 0) != 0)
      say(join_text(config.file(), ": ", key, " is ", config.real(key),
                    "; Conclave trains without it, and export hands it on."));
}

/// The weight of the balance loss that a config.json asks for; a recipe that was given says it itself.
void read_balance(const ConfigReader& config, ModelRecipe& model, const Say& say) {
  const char* key = "router_aux_loss_coef";
  if (!config.has(key) || count_moe_layers(model) == 0) return;
  const double coefficient = config.real(key);
  if (coefficient < 0) config.refuse(key, ": ", coefficient, " came, expected 0 or more.");
  model.moe.balance = balance_of(coefficient, model);
  say(model.moe.balance.empty()
          ? join_text(key, ": 0 becomes model.moe.balance: [].")
          : join_text(key, ": ", coefficient, " becomes a term of model.moe.balance with the coefficient ",
                      model.moe.balance[0].coefficient, ", which weighs as much."));
}

/// A window that no sequence reaches beyond changes nothing.
void check_window(const ConfigReader& config, std::int64_t window, std::int64_t sequence_length,
                  const Say& say) {
  if (window < sequence_length)
    config.refuse("sliding_window: some blocks see ", window, " tokens back, but data.sequence_length is ",
                  sequence_length,
                  ", and Conclave's attention sees the whole document; data.sequence_length=", window,
                  " makes both the same.");
  say(join_text("Its attention sees ", window, " tokens back, which no sequence of data.sequence_length: ",
                sequence_length, " is longer than. Conclave's attention sees the whole sequence."));
}

/// The rules that hold for a model alone; a config.json can break them too.
void check_model(const ModelRecipe& model, const std::string& file, Fault fault) {
  Recipe recipe;
  recipe.model = model;
  recipe.model.moe.capacity_factor = 0;  // these two are about the data and the batches
  recipe.model.moe.balance.clear();
  recipe.data.tokenizer = "unknown";
  recipe.data.train = {{.path = "unknown", .domain = "unknown"}};
  try {
    validate_recipe(recipe, 1);
  } catch (const Error& error) {
    fail(fault, file, ": ", error.what());
  }
}

/// A config.json may announce more tensors than memory could name; nobody has more than there are.
void check_count(const HubDirectory& directory, const Architecture& architecture, const ModelRecipe& model,
                 const std::string& file) {
  const double layers = static_cast<double>(model.num_hidden_layers),
               experts =
                   static_cast<double>(count_moe_layers(model)) * static_cast<double>(model.moe.num_experts),
               tensors = static_cast<double>(directory.tensors());
  check(layers <= tensors && (architecture.packs_experts || experts <= tensors), Fault::data, file, ": ",
        model.num_hidden_layers, " blocks with ", model.moe.num_experts,
        " experts are announced, but there are only ", directory.tensors(), " tensors.");
  if (!architecture.packs_experts) return;
  const std::string stack = architecture.tensor_name("model.layers.0.mlp.experts.down_proj.weight", -1);
  check(directory.contains(stack), Fault::data, file, ": ", stack, " is announced, but is not there.");
  const Dims& shape = directory.shape(stack);
  check(!shape.empty() && shape[0] == model.moe.num_experts, Fault::data, file, ": ", model.moe.num_experts,
        " experts are announced, but ", stack, " is ", dims_text(shape), ".");
}

/// A block that predicts further tokens comes behind the model's own.
bool predicts_further(const std::string& name, const Architecture& architecture, const ModelRecipe& model) {
  return &architecture == &glm4_moe &&
         name.starts_with(join_text("model.layers.", model.num_hidden_layers, "."));
}

/// The entries of some directories besides the parameters.
bool is_ignored(const std::string& name, const Architecture& architecture, const ModelRecipe& model) {
  if (name.ends_with("rotary_emb.inv_freq")) return true;  // a function of the config
  if (name == "lm_head.weight") return model.tie_word_embeddings;
  return predicts_further(name, architecture, model);
}

/// An export adds a shared expert of zeros where an architecture needs one. It stays zero in training: its
/// inner values are zero, and so are the gradients of all three matrices. So the model is the one without.
bool has_shared_zeros(const HubDirectory& directory, const Architecture& architecture, ModelRecipe model) {
  if (!architecture.needs_shared_experts || model.moe.num_shared_experts != 1) return false;
  model.moe.num_shared_experts = 0;
  const std::vector<HubTensor> tensors = hub_tensors(architecture, model);
  return std::all_of(tensors.begin(), tensors.end(), [&](const HubTensor& tensor) {
    if (!tensor.parts.empty()) return true;
    if (!directory.contains(tensor.name) || directory.shape(tensor.name) != tensor.shape) return false;
    std::vector<float> values(static_cast<std::size_t>(element_count(tensor.shape)));
    directory.read(tensor.name, values.data());
    return std::all_of(values.begin(), values.end(), [](float value) { return value == 0; });
  });
}

/// A head that is tied to the embedding may be there once more, and is then the same numbers.
void check_tied_head(const HubDirectory& directory, const ModelRecipe& model, const std::string& file) {
  const std::string head = "lm_head.weight", embedding = "model.embed_tokens.weight";
  if (!model.tie_word_embeddings || !directory.contains(head)) return;
  check(directory.is_same(head, embedding), Fault::data, file, ": tie_word_embeddings is true, but ", head,
        " has other numbers than ", embedding, ". Expected false, or a directory without ", head, ".");
}

/// Writes the tensors of one model into a checkpoint, in the type of its master weights.
template <class T>
class Importer {
 public:
  Importer(const HubDirectory& directory, const Architecture& architecture, const ModelRecipe& source,
           const OptimizerRecipe& optimizer, CheckpointStream& stream, const Say& say)
      : directory_(directory),
        tensors_(hub_tensors(architecture, source)),
        places_(places_of(tensors_)),
        states_(states_at_beginning(optimizer, dtype_of<T>())),
        stream_(stream),
        say_(say) {}

  /// All parameters as they are; the selection bias is take_bias's.
  void copy() {
    std::set<std::string> done = {selection_bias_name};
    for (const HubTensor& tensor : tensors_)
      for (const HubPart& part : tensor.parts)
        if (done.insert(part.source).second)
          add(part.source, part.source_dims, values_of_source(part.source));
  }

  /// The parameters of the model with experts that the dense one becomes.
  void upcycle(const ModelRecipe& dense, const ModelRecipe& model, const UpcycleOptions& options) {
    const std::int64_t parts = parts_of(options, dense), experts = options.experts;
    const double scale = down_scale(model, parts),
                 range = options.router_range < 0 ? model.initializer_range : options.router_range;
    for (const auto& [name, dims] : parameter_dims(model)) {
      const std::string full = "model/" + name, stack = ".mlp.experts.";
      const std::size_t at = name.find(stack);
      if (name.ends_with(".mlp.gate.weight")) {
        add(full, dims, upcycled_router<T>(name, experts, dense.hidden_size, parts, range, options.seed));
      } else if (at == std::string::npos) {
        add(full, dims, values_of_source(full));
      } else {
        const std::vector<T> matrix =
            values_of_source("model/" + name.substr(0, at) + ".mlp." + name.substr(at + stack.size()));
        add(full, dims,
            name.ends_with("down_proj.weight")
                ? experts_of_columns(matrix, dense.intermediate_size, dense.hidden_size, experts, parts,
                                     scale)
                : experts_of_rows(matrix, dense.intermediate_size, dense.hidden_size, experts, parts));
      }
    }
  }

  /// [mixture-of-experts blocks, experts]; empty where the architecture has none.
  std::vector<double> bias() const {
    std::vector<double> values;
    for (const HubTensor& tensor : tensors_) {
      if (tensor.parts.empty() || tensor.parts[0].source != selection_bias_name) continue;
      const std::size_t at = values.size();
      values.resize(at + static_cast<std::size_t>(tensor.shape[0]));
      directory_.read(tensor.name, values.data() + at);
    }
    return values;
  }

 private:
  void add(const std::string& name, const Dims& dims, const std::vector<T>& values) {
    add_first(stream_, states_, name, dims, values);
    bytes_ += values.size() * sizeof(T);
    if (bytes_ / gigabyte > said_) {
      said_ = bytes_ / gigabyte;
      say_(join_text(said_, " GB written"));
    }
  }
  /// All elements of a source, from the tensors that have parts of it.
  std::vector<T> values_of_source(const std::string& source) const {
    const auto found = places_.find(source);
    check(found != places_.end(), "import: the model has no ", source);
    const std::vector<Place>& places = found->second;
    std::vector<T> values(static_cast<std::size_t>(element_count(places[0].part->source_dims)));
    T* next = values.data();
    for (const Place& place : places) {
      if (place.tensor->parts.size() == 1)
        directory_.read(place.tensor->name, next);
      else
        directory_.read(place.tensor->name, place.first, place.part->elements(), next);
      next += place.part->elements();
    }
    return values;
  }

  static constexpr std::size_t gigabyte = 1000'000'000;

  /// Where a part of a source is: a tensor, and the first of its elements.
  struct Place {
    const HubTensor* tensor;
    const HubPart* part;
    std::int64_t first;
  };
  static std::map<std::string, std::vector<Place>> places_of(const std::vector<HubTensor>& tensors) {
    std::map<std::string, std::vector<Place>> places;
    for (const HubTensor& tensor : tensors) {
      std::int64_t first = 0;
      for (const HubPart& part : tensor.parts) {
        places[part.source].push_back({&tensor, &part, first});
        first += part.elements();
      }
    }
    return places;
  }

  const HubDirectory& directory_;
  std::vector<HubTensor> tensors_;
  std::map<std::string, std::vector<Place>> places_;  // of each source, its rows one after another
  std::vector<NamedState> states_;
  CheckpointStream& stream_;
  const Say& say_;
  std::size_t bytes_ = 0, said_ = 0;  // so far, and the gigabytes that have been told of
};

template <class T>
void write_checkpoint(const ImportOptions& options, const HubDirectory& directory,
                      const Architecture& architecture, const ModelRecipe& source, const SourceFacts& facts,
                      Recipe& recipe, const Say& say) {
  CheckpointStream stream(options.run / "checkpoints", 0);
  Importer<T> importer(directory, architecture, source, recipe.optimizer, stream, say);
  if (options.upcycle)
    importer.upcycle(source, recipe.model, *options.upcycle);
  else
    importer.copy();
  SelectionBiasRecipe& bias = recipe.model.moe.router.bias;
  const std::vector<double> values = importer.bias();
  if (std::any_of(values.begin(), values.end(), [](double value) { return value != 0; }) && bias.rate == 0) {
    bias.rate = 0.001;
    say("Its routers choose with a selection bias, which goes on with model.moe.router.bias.rate: 0.001; "
        "last_step: 0 there keeps it where it is.");
  }
  if (!values.empty() && bias.rate > 0)
    stream.add(selection_bias_name, ElementType::float64,
               {count_moe_layers(recipe.model), recipe.model.moe.num_experts}, values.data());
  Attributes attributes = first_attributes(recipe);
  attributes[source_attribute] = facts.text();
  stream.commit(attributes);
  // Last, so that nobody trains by a recipe that has no checkpoint beside it.
  write_text_durably(options.run / "recipe.yaml", to_yaml(recipe));
}

/// The model of the weights with what a run may choose anew: how it is trained, not what it computes; of an
/// upcycled model, whose routers are new, how they choose as well.
ModelRecipe as_trained(ModelRecipe weights, const ModelRecipe& run, bool new_routers) {
  if (new_routers) weights.moe.router = run.moe.router;
  weights.initializer_range = run.initializer_range;
  weights.moe.balance = run.moe.balance;
  weights.moe.layer_reduction = run.moe.layer_reduction;
  weights.moe.capacity_factor = run.moe.capacity_factor;
  weights.moe.router.z_loss_coefficient = run.moe.router.z_loss_coefficient;
  weights.moe.router.bias = run.moe.router.bias;
  weights.moe.router.pool = run.moe.router.pool;
  return weights;
}

/// Routers that come from no checkpoint of Conclave are linear and know no ids of tokens.
void check_router_fits(const RouterRecipe& router, const std::string& recipe) {
  check(
      std::holds_alternative<LinearScoreRecipe>(router.score), Fault::request, recipe,
      ": model.moe.router.score: cosine came, but the routers of an imported model score linearly; expected "
      "linear");
  check(router.vocabulary.visible == 0, Fault::request, recipe,
        ": model.moe.router.vocabulary.visible: ", router.vocabulary.visible,
        " came, but an imported model does not say which ids are frequent; expected 0");
}

}  // namespace

Recipe import_model(const ImportOptions& options, const Say& say) {
  check(!options.run.filename().string().starts_with("step-"), Fault::request, options.run.string(),
        " came; give the directory of a run, in which checkpoints/step-00000000 will be made.");
  check_place_of_run(options.run);
  const ConfigReader config(options.directory / "config.json");
  const Origin origin = origin_of(config);
  const Architecture& architecture = origin.architecture;
  SourceFacts facts = read_source_facts(options.directory, config);
  check(!options.upcycle || !architecture.has_experts, Fault::request, options.directory.string(), " is ",
        origin.class_name, ", which has experts already; --upcycle is for dense models.");

  Recipe recipe;
  if (!options.recipe.empty()) recipe = load_recipe(options.recipe);
  check_router_fits(recipe.model.moe.router, options.recipe);
  ModelRecipe source = recipe.model;
  source.moe.router.pool = {};  // no config.json has them
  read_model(origin, config, source);
  const std::optional<std::int64_t> window = window_of(config);
  check_model(source, config.file(), Fault::data);
  const PoolRecipe pool = recipe.model.moe.router.pool;
  recipe.model = options.upcycle ? upcycled(source, *options.upcycle) : source;
  recipe.model.moe.router.pool = pool;
  if (options.recipe.empty()) {
    recipe.name = fs::absolute(options.directory / "").parent_path().filename().string();
    recipe.data.sequence_length =
        config.has("max_position_embeddings") ? config.whole("max_position_embeddings") : 256;
    if (architecture.has_experts) read_balance(config, recipe.model, say);
  }
  HubDirectory directory(options.directory);
  check_count(directory, architecture, source, config.file());
  add_views(origin, hub_tensors(architecture, source), source, config, directory);
  if (has_shared_zeros(directory, architecture, source)) {
    say("The shared expert of each block is zero, which changes nothing; the model is read without it.");
    source.moe.num_shared_experts = recipe.model.moe.num_shared_experts = 0;
  }
  directory.check_fits(hub_tensors(architecture, source),
                       [&](const std::string& name) { return is_ignored(name, architecture, source); });
  check_tied_head(directory, source, config.file());
  say(join_text(options.directory.string(), ": ", origin.class_name, " with ",
                count_parameters(source).total(), " parameters"));
  if (origin.note != nullptr) say(origin.note);
  say_what_training_leaves_out(config, say);
  if (directory.any([&](const std::string& name) { return predicts_further(name, architecture, source); }))
    say(join_text("model.layers.", source.num_hidden_layers,
                  ", a block that predicts further tokens, is left out: Conclave's model has none."));

  make_directories(options.run);
  try {
    const std::string tokenizer =
        import_tokenizer(options.directory, options.run, source.vocab_size, facts, say);
    if (!tokenizer.empty())
      recipe.data.tokenizer = tokenizer;
    else
      say("It has no tokenizer; data.tokenizer stays " + recipe.data.tokenizer + ".");
    recipe.output = options.run.string();
    const ModelRecipe shape = recipe.model;
    for (const std::string& change : options.overrides) apply_override(recipe, change);
    check(as_trained(shape, recipe.model, options.upcycle.has_value()) == recipe.model, Fault::request,
          "key.path=value changes what the weights mean, which is the model of ", options.directory.string(),
          "; of model, expected balance, z-loss, selection bias, pools, capacity, layer_reduction and "
          "initializer_range alone, and keys of training, data, optimizer and the like.");
    check_model(recipe.model, "the recipe", Fault::request);
    if (window) check_window(config, *window, recipe.data.sequence_length, say);

    const bool wide = recipe.training.precision == NumberFormat::fp64;
    if (!wide && directory.has_type("F64"))
      say("Its weights of 64 bits are rounded to 32; training.precision=fp64 keeps them.");
    check_free_space(options.run, static_cast<std::size_t>(count_parameters(shape).total()) * (wide ? 8 : 4));
    if (wide)
      write_checkpoint<double>(options, directory, architecture, source, facts, recipe, say);
    else
      write_checkpoint<float>(options, directory, architecture, source, facts, recipe, say);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(options.run, ignored);  // it was not there, or empty
    throw;
  }
  return recipe;
}

}  // namespace conclave
