#include "launch/commands/evaluate.h"

#include <cstdio>
#include <iostream>

#include "framework/recipe/parse.h"
#include "framework/recipe/validate.h"
#include "launch/checkpoint_choice.h"
#include "launch/command_line.h"
#include "launch/job.h"
#include "launch/model.h"
#include "launch/specialisation.h"
#include "parallel/agreement.h"

namespace conclave {

int run_evaluate(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "evaluate",
       .positionals = "CHECKPOINT [key.path=value ...]",
       .summary =
           "Validation loss and perplexity by domain, and how far experts have specialised on domains.",
       .options = {{"batches", "N",
                    "global batches per domain; 0, the default, takes the whole validation text"},
                   {"json", "", "print one JSON object, with all that the tables are made of"}},
       .more = "CHECKPOINT is a step-... directory, a checkpoints directory or a run directory (its newest "
               "good one).\n"
               "The validation text is that of the run's recipe; key.path=value changes it. Works under "
               "mpirun too.\n"
               "docs/specialisation.md says what the measures mean and names the keys of the JSON object.\n\n"
               "Examples:\n"
               "  conclave evaluate runs/quickstart\n"
               "  conclave evaluate runs/quickstart/checkpoints/step-00000100 --batches 8\n"
               "  conclave evaluate runs/quickstart --json > measures.json\n"
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
    std::unique_ptr<Model> model;
    std::unique_ptr<ValidationData> validation;
    Recipe recipe;
    const std::string source = find_checkpoint(*world, path).path->string();
    agree(*world, [&] {
      const CheckpointReader checkpoint(source, Verify::nothing);
      recipe = recipe_of(checkpoint);
      for (const std::string& change : options.overrides()) apply_override(recipe, change);
      recipe.parallel = {};  // every rank holds the whole model
      validate_recipe(recipe, 1);
      check(!recipe.data.validation.empty(), Fault::request,
            "the run's recipe names no validation text; give some with data.validation=[{path: ..., domain: "
            "...}]");
    });
    Device& device = choose_device(*world, recipe.training.device);
    choose_threads(*world, recipe.training.threads);
    agree(*world, [&] {
      validation = std::make_unique<ValidationData>(recipe.data, recipe.model.vocab_size);
      model = std::make_unique<Model>(recipe, Mesh::alone(), device);
      load_model(CheckpointReader(source, Verify::nothing), *model);
    });
    const auto results = evaluate(model->transformer, *validation,
                                  {.most_sequences = batches * recipe.training.global_batch_size,
                                   .micro_batch_size = recipe.training.micro_batch_size,
                                   .experts = recipe.model.moe.num_experts},
                                  mesh);
    if (world->rank() != 0) return 0;
    const EvaluationContext context{.checkpoint = source,
                                    .first_block = recipe.model.moe.first_k_dense_replace,
                                    .layers = model->transformer.moe_layers(),
                                    .experts = recipe.model.moe.num_experts,
                                    .top_k = recipe.model.moe.num_experts_per_tok};
    if (options.has("json"))
      std::cout << evaluation_json(results, context).dump(2) << "\n";
    else
      std::cout << source << "\n\n" << evaluation_tables(results, context);
    return 0;
  });
}

}  // namespace conclave
