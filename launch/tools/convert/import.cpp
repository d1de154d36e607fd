#include "launch/tools/convert/import.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/durable_file.h"
#include "framework/store/json_text.h"
#include "framework/store/lookup.h"
#include "launch/tools/convert/first_checkpoint.h"
#include "launch/tools/convert/hub_directory.h"
#include "launch/tools/convert/imported_tokenizer.h"
#include "launch/tools/convert/source_facts.h"
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

const Architecture& architecture_of(const ConfigReader& config) {
  const std::string model_type = config.text_or("model_type", "");
  for (const Architecture* architecture : architectures())
    if (architecture->model_type == model_type) return *architecture;
  if (model_type == "mistral") return llama;  // the same mathematics where it has no window
  std::string names;
  for (const Architecture* architecture : architectures())
    names += join_text(names.empty() ? "" : ", ", architecture->model_type);
  config.refuse("its model_type is \"", model_type, "\"; Conclave imports ", names, " and mistral.");
}

/// Puts the model's own facts over those of a recipe: losses, initialisation, selection bias.
void read_model(const Architecture& architecture, const ConfigReader& config, ModelRecipe& model) {
  model.moe.num_shared_experts = model.moe.first_k_dense_replace = 0;
  if (architecture.has_experts) {  // else routers are the recipe's to choose
    const RouterRecipe plain;
    RouterRecipe& router = model.moe.router;
    router.kind = plain.kind;
    router.routed_scaling_factor = plain.routed_scaling_factor;
    router.n_group = plain.n_group;
    router.topk_group = plain.topk_group;
  }
  read_common_config(config, model);
  architecture.read_config(config, model);
}

/// A config.json also names the class of transformers that it was written for.
void check_class(const ConfigReader& config, const Architecture& architecture) {
  if (!config.has("architectures")) return;
  const std::string wanted =
      config.text_or("model_type", "") == "mistral" ? "MistralForCausalLM" : architecture.class_name;
  const nlohmann::json& classes = config.json()["architectures"];
  for (const nlohmann::json& name : classes)
    if (name == wanted) return;
  config.refuse("architectures is ",
                text_of(classes.is_array() && classes.size() == 1 ? classes[0] : classes),
                ", but model_type ", config.text_or("model_type", ""),
                " with the head of a language model is ", wanted, "; take the one out that is wrong.");
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
void check_count(const HubDirectory& directory, const ModelRecipe& model, const std::string& file) {
  const double layers = static_cast<double>(model.num_hidden_layers),
               experts =
                   static_cast<double>(count_moe_layers(model)) * static_cast<double>(model.moe.num_experts),
               tensors = static_cast<double>(directory.tensors());
  check(layers <= tensors && experts <= tensors, Fault::data, file, ": ", model.num_hidden_layers,
        " blocks with ", model.moe.num_experts, " experts are announced, but there are only ",
        directory.tensors(), " tensors.");
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
        states_(states_at_beginning(optimizer, dtype_of<T>())),
        stream_(stream),
        say_(say) {}

  /// All parameters as they are; the selection bias is take_bias's.
  void copy() {
    for (std::size_t i = 0; i < tensors_.size();) {
      const std::size_t first = i;
      while (i < tensors_.size() && tensors_[i].source == tensors_[first].source) ++i;
      if (tensors_[first].source != selection_bias_name)
        add(tensors_[first].source, tensors_[first].source_dims, values_of(first, i));
    }
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
      if (tensor.source != selection_bias_name) continue;
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
  /// The rows of one source, or the whole of it.
  std::vector<T> values_of(std::size_t first, std::size_t end) const {
    std::vector<T> values(static_cast<std::size_t>(element_count(tensors_[first].source_dims)));
    T* next = values.data();
    for (std::size_t i = first; i < end; ++i) {
      directory_.read(tensors_[i].name, next);
      next += element_count(tensors_[i].shape);
    }
    return values;
  }
  std::vector<T> values_of_source(const std::string& source) const {
    const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                    [&](const HubTensor& tensor) { return tensor.source == source; });
    check(found != tensors_.end(), "import: the dense model has no ", source);
    const auto at = static_cast<std::size_t>(found - tensors_.begin());
    return values_of(at, at + 1);
  }

  static constexpr std::size_t gigabyte = 1000'000'000;

  const HubDirectory& directory_;
  std::vector<HubTensor> tensors_;
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
  const Architecture& architecture = architecture_of(config);
  check_class(config, architecture);
  SourceFacts facts = read_source_facts(options.directory, config);
  check(!options.upcycle || !architecture.has_experts, Fault::request, options.directory.string(), " is ",
        architecture.class_name, ", which has experts already; --upcycle is for dense models.");

  Recipe recipe;
  if (!options.recipe.empty()) recipe = load_recipe(options.recipe);
  check_router_fits(recipe.model.moe.router, options.recipe);
  ModelRecipe source = recipe.model;
  source.moe.router.pool = {};  // no config.json has them
  read_model(architecture, config, source);
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
  const HubDirectory directory(options.directory);
  check_count(directory, source, config.file());
  directory.check_fits(hub_tensors(architecture, source),
                       [&](const std::string& name) { return is_ignored(name, architecture, source); });
  check_tied_head(directory, source, config.file());
  say(join_text(options.directory.string(), ": ", architecture.class_name, " with ",
                count_parameters(source).total(), " parameters"));
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
