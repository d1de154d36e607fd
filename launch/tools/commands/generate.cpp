#include "launch/tools/commands/generate.h"

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>

#include "framework/base/text.h"
#include "framework/data/text_stream.h"
#include "framework/data/tokenizer.h"
#include "framework/store/checkpoint_directory.h"
#include "launch/tools/commands/command_line.h"
#include "launch/train/job.h"
#include "launch/train/model.h"
#include "launch/train/resumption.h"
#include "launch/train/sampler.h"

namespace conclave {
namespace {

/// Where it computes: as --device says, or where the model was trained.
DeviceKind device_of(const Options& options, const Recipe& recipe) {
  const std::string name = options.text("device", word_of(recipe.training.device));
  const std::optional<DeviceKind> kind = value_of_word<DeviceKind>(name);
  check(kind.has_value(), Fault::request, "training.device: \"", name,
        "\" came, expected cpu, emulated or cuda");
  return *kind;
}

/// The one that the model was trained with, which --tokenizer may find in another place.
std::unique_ptr<Tokenizer> tokenizer_of(const CheckpointReader& checkpoint, const Recipe& recipe,
                                        const Options& options) {
  const std::string name = options.text("tokenizer", recipe.data.tokenizer);
  std::error_code code;
  check(options.has("tokenizer") || name == "bytes" || std::filesystem::exists(name, code), Fault::data,
        "generate: the tokenizer ", name, " of ", checkpoint.path().string(),
        " is not there as seen from this directory; give its place with --tokenizer PATH, or start from the "
        "directory where the model was trained");
  auto tokenizer = load_tokenizer(name);
  const std::string recorded = recorded_tokenizer(checkpoint), found = tokenizer_fingerprint(name);
  check(recorded.empty() || recorded == found, Fault::data, "generate: the tokenizer ", name,
        " is not the one that ", checkpoint.path().string(), " was trained with, ", recipe.data.tokenizer,
        " (", found, " came, expected ", recorded, "); give that one with --tokenizer PATH");
  check(tokenizer->vocab_size() <= recipe.model.vocab_size, Fault::data, "generate: the tokenizer ", name,
        " has ", counted(tokenizer->vocab_size(), "id"), ", but the model of ", checkpoint.path().string(),
        " ", recipe.model.vocab_size, "; the file is not the one that it was trained with");
  return tokenizer;
}

}  // namespace

int run_generate(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "generate",
       .positionals = "CHECKPOINT",
       .summary = "Samples text from a checkpoint.",
       .options = {{"prompt", "TEXT", "what the text begins with; without it, the beginning of a document"},
                   {"document-start", "",
                    "treat the prompt as the beginning of a document; without it, nothing is put before it"},
                   {"tokens", "N", "tokens to sample (default 200); an end of document ends sooner"},
                   {"temperature", "X", "0 takes the most likely token; default 0.8"},
                   {"top-k", "K", "draw among the K most likely tokens only; 0, the default: all"},
                   {"tokenizer", "PATH", "the tokenizer of the model, where it is not at the recipe's place"},
                   {"seed", "N", "the same seed gives the same text (default 1234)"},
                   {"device", "NAME", "cpu or cuda; without it, what the model was trained on"}},
       .more = "CHECKPOINT is a step-... directory, a checkpoints directory or a run directory (its newest "
               "good one).\n"
               "The model sees at most the sequence length it was trained with.\n\n"
               "Examples:\n"
               "  conclave generate runs/quickstart --prompt \"In the beginning\"\n"
               "  conclave generate runs/quickstart --prompt \"def \" --temperature 0 --tokens 100\n"
               "  conclave generate runs/quickstart --prompt \"The \" --document-start\n"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  options.refuse_overrides();
  const std::string path = options.only_positional("checkpoint");
  const std::int64_t tokens = options.whole_number("tokens", 200, 1);
  const SamplingOptions sampling{.temperature = options.number("temperature", 0.8),
                                 .top_k = options.whole_number("top-k", 0, 0),
                                 .seed = static_cast<std::uint64_t>(options.whole_number("seed", 1234, 0))};
  check(sampling.temperature >= 0, Fault::request, "generate: --temperature ", sampling.temperature,
        " came, expected zero or more");

  choose_threads(*self_communicator(), 0);
  const CheckpointReader checkpoint(*find_checkpoint(path).path, Verify::nothing);
  Recipe recipe = recipe_of(checkpoint);
  // Places are shared out in whole sequences; text that is still growing drops nothing.
  recipe.model.moe.capacity_factor = 0;
  const auto tokenizer = tokenizer_of(checkpoint, recipe, options);
  Model model(recipe, Mesh::alone(), choose_device(*self_communicator(), device_of(options, recipe)));
  load_model(checkpoint, model);

  const std::vector<std::int32_t> prompt = tokenizer->encode(options.text("prompt", ""));
  std::vector<std::int32_t> context = prompt;
  // In training this token opens each document, so a text that begins where a document does begins with it.
  if (prompt.empty() || options.has("document-start"))
    context.insert(context.begin(), tokenizer->end_of_document());
  const RandomKey key = RandomKey(sampling.seed).with("generate");
  TextStream text(*tokenizer);
  std::cout << text.push(prompt) << std::flush;
  for (std::int64_t i = 0; i < tokens; ++i) {
    const std::int32_t token =
        sample(next_token_logits(model.transformer, context, recipe.data.sequence_length),
               tokenizer->vocab_size(), sampling, key, static_cast<std::uint64_t>(i));
    if (token == tokenizer->end_of_document()) break;
    context.push_back(token);
    std::cout << text.push({&token, 1}) << std::flush;
  }
  std::cout << text.finish() << "\n";
  return 0;
}

}  // namespace conclave
