#include "launch/tools/commands/evaluate.h"

#include <cstdio>
#include <iostream>

#include "framework/base/error.h"
#include "framework/base/printable.h"
#include "framework/data/tokenizer.h"
#include "launch/tools/commands/command_line.h"
#include "launch/tools/report/evaluation_report.h"
#include "launch/train/checkpoint_choice.h"
#include "launch/train/job.h"
#include "launch/train/model.h"
#include "launch/train/recipe_rules.h"
#include "launch/train/recipe_text.h"
#include "launch/train/resumption.h"
#include "layers/moe/recipe.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

/// A checkpoint and how it is evaluated.
struct Evaluated {
  std::string source;
  Recipe recipe;
  std::vector<DomainResult> results;

  EvaluationContext context() const {
    const ModelRecipe& model = recipe.model;
    return {.checkpoint = source,
            .blocks = moe_blocks(model),
            .experts = model.moe.num_experts,
            .top_k = model.moe.num_experts_per_tok};
  }
};

/// These say how an evaluation goes; other keys of the recipe say nothing here or belong to the weights.
bool means_something_here(const std::string& key) {
  const auto is_in = [&](const std::string& section) { return key.starts_with(section); };
  for (const char* name : {"training.device", "training.threads", "training.precision",
                           "training.global_batch_size", "training.micro_batch_size"})
    if (key == name) return true;
  return is_in("data.") || is_in("model.") || is_in("evaluation.") || is_in("checkpoint.accept_changes");
}

/// The pools of an evaluation may be tried in other sizes. The tokenizer is compared by its content.
bool belongs_to_the_weights(const std::string& key) {
  return gives_weights_their_meaning(key) && key != "model.moe.router.pool.evaluation" &&
         key != "data.tokenizer";
}

/// Refuses what would measure another model without a word, and returns a sentence for each other change.
std::vector<std::string> check_changes(const CheckpointReader& checkpoint, const Recipe& before,
                                       const Recipe& after) {
  std::vector<std::string> sentences;
  for (const KeyChange& change : changes_between(before, after)) {
    check(means_something_here(change.key), Fault::request, "evaluate: ", change.key, "=", change.after,
          " came, which means nothing in an evaluation; expected keys of data, evaluation and model, or "
          "training.device, threads, precision, global_batch_size or micro_batch_size");
    check(!belongs_to_the_weights(change.key) || accepts_change(after, change.key), Fault::request,
          "evaluate: ", change.key, ": ", change_text(change), " makes another model of the weights in ",
          checkpoint.path().string(),
          "; leave it out or, where that is meant, add checkpoint.accept_changes=[", change.key, "]");
    const bool is_told = !change.key.starts_with("checkpoint.") && change.key != "training.device" &&
                         change.key != "training.threads";
    if (is_told)
      sentences.push_back(join_text("Changed for this evaluation: ", change.key, ": ", change_text(change)));
  }
  const std::string recorded = recorded_tokenizer(checkpoint);
  if (before.data.tokenizer != after.data.tokenizer && !recorded.empty()) {
    const std::string found = tokenizer_fingerprint(after.data.tokenizer);
    check(found == recorded, Fault::request, "evaluate: data.tokenizer=", after.data.tokenizer,
          " is not the tokenizer that ", checkpoint.path().string(), " was trained with (", found,
          " came, expected ", recorded, ")");
  }
  return sentences;
}

/// Finds the checkpoint and reads its recipe. Collective.
Evaluated open_checkpoint(Communicator& world, const std::string& path,
                          const std::vector<std::string>& overrides) {
  Evaluated opened;
  opened.source = find_checkpoint(world, path).path->string();
  agree(world, [&] {
    const CheckpointReader checkpoint(opened.source, Verify::nothing);
    const Recipe trained = recipe_of(checkpoint);
    opened.recipe = trained;
    for (const std::string& change : overrides) apply_override(opened.recipe, change);
    const std::vector<std::string> sentences = check_changes(checkpoint, trained, opened.recipe);
    opened.recipe.parallel = {};  // every rank holds the whole model
    validate_recipe(opened.recipe, 1);
    for (const std::string& sentence : sentences)
      if (world.rank() == 0) std::cerr << printable(sentence) << "\n";
  });
  return opened;
}

/// The other checkpoint is measured on the same text, which must mean the same to it.
void share_text(const Evaluated& first, Evaluated& other) {
  const std::int64_t wanted = first.recipe.model.vocab_size, found = other.recipe.model.vocab_size;
  check(wanted == found, Fault::request, "--against ", other.source, ": its model has ", found,
        " token ids, that of ", first.source, " ", wanted, "; expected the same");
  const std::string &tokenizer = first.recipe.data.tokenizer, &others = other.recipe.data.tokenizer;
  check(tokenizer == others || tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(others),
        Fault::request, "--against ", other.source, ": it was trained with the tokenizer ", others, ", ",
        first.source, " with ", tokenizer, "; expected the same");
  other.recipe.data = first.recipe.data;
}

/// Collective.
void measure(const Mesh& mesh, std::int64_t batches, std::int64_t micro_batch_size, Evaluated& evaluated) {
  const Recipe& recipe = evaluated.recipe;
  Communicator& world = mesh.world();
  Device& device = choose_device(world, recipe.training.device);
  choose_threads(world, recipe.training.threads);
  std::unique_ptr<ValidationData> validation;
  std::unique_ptr<Model> model;
  agree(world, [&] {
    validation = std::make_unique<ValidationData>(recipe.data, recipe.model.vocab_size);
    model = std::make_unique<Model>(recipe, Mesh::alone(), device);
    load_model(CheckpointReader(evaluated.source, Verify::nothing), *model);
  });
  evaluated.results = evaluate(model->transformer, *validation,
                               {.most_sequences = batches,
                                .micro_batch_size = micro_batch_size,
                                .experts = recipe.model.moe.num_experts},
                               mesh);
}

/// On all ranks alike.
void refuse_losses_not_finite(const Evaluated& evaluated) {
  if (const std::string sentence = domains_not_finite(evaluated.results); !sentence.empty())
    throw Error(Fault::numeric, join_text("Checkpoint ", evaluated.source, ": ", sentence), Reach::all_ranks);
}

void print_tables(const Evaluated& first, const Evaluated* other) {
  const auto tables = [](const Evaluated& evaluated) {
    return printable(
        join_text(evaluated.source, "\n\n", evaluation_tables(evaluated.results, evaluated.context())));
  };
  std::cout << tables(first);
  if (other == nullptr) return;
  std::cout << "\nOther: " << tables(*other) << "\nDifference, other minus first\n"
            << printable(comparison_table(first.results, other->results));
}

void print_json(const Evaluated& first, const Evaluated* other) {
  nlohmann::ordered_json json = evaluation_json(first.results, first.context());
  if (other != nullptr) {
    json["against"] = evaluation_json(other->results, other->context());
    json["difference"] = comparison_json(first.results, other->results);
  }
  std::cout << json.dump(2) << "\n";
}

}  // namespace

int run_evaluate(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "evaluate",
       .positionals = "CHECKPOINT [key.path=value ...]",
       .summary =
           "Validation loss and perplexity by domain, and how far experts have specialised on domains.",
       .options = {{"batches", "N",
                    "global batches per domain; 0, the default, takes the whole validation text"},
                   {"against", "OTHER", "another checkpoint on the same text, and the differences of losses"},
                   {"json", "", "print one JSON object, with all that the tables are made of"}},
       .more =
           "CHECKPOINT is a step-... directory, a checkpoints directory or a run directory (its newest "
           "good one).\n"
           "The validation text is that of the run's recipe; key.path=value changes it. A key that would\n"
           "make another model of the weights needs checkpoint.accept_changes=[KEY]. Works under mpirun "
           "too.\n"
           "docs/specialisation.md says what the measures mean and names the keys of the JSON object.\n\n"
           "Examples:\n"
           "  conclave evaluate runs/quickstart\n"
           "  conclave evaluate runs/quickstart/checkpoints/step-00000100 --batches 8\n"
           "  conclave evaluate runs/quickstart --json > measures.json\n"
           "  conclave evaluate runs/quickstart --against runs/quickstart-python-4\n"
           "  conclave evaluate runs/quickstart 'data.validation=[{path: data/other, domain: other}]'\n"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  const std::string path = options.only_positional("checkpoint");
  const std::int64_t batches = options.whole_number("batches", 0, 0);
  return run_job([&](const std::shared_ptr<Communicator>& world) {
    const Mesh mesh(world, {});
    if (world->rank() == 0) options.warn_of_comments();
    Evaluated first = open_checkpoint(*world, path, options.overrides());
    std::optional<Evaluated> other;
    if (options.has("against"))
      other = open_checkpoint(*world, options.text("against", ""), options.overrides());
    agree(*world, [&] {
      check(!first.recipe.data.validation.empty(), Fault::request,
            "the run's recipe names no validation text; give some with data.validation=[{path: ..., domain: "
            "...}]");
      if (other) share_text(first, *other);
    });
    const TrainingRecipe& training = first.recipe.training;
    measure(mesh, batches * training.global_batch_size, training.micro_batch_size, first);
    if (other) measure(mesh, batches * training.global_batch_size, training.micro_batch_size, *other);
    if (world->rank() == 0)
      (options.has("json") ? print_json : print_tables)(first, other ? &*other : nullptr);
    refuse_losses_not_finite(first);
    if (other) refuse_losses_not_finite(*other);
    return 0;
  });
}

}  // namespace conclave
