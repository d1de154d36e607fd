#include "launch/tools/commands/generate.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <limits>
#include <optional>
#include <utility>

#include "framework/base/printable.h"
#include "framework/base/text.h"
#include "framework/data/files.h"
#include "framework/data/text_stream.h"
#include "framework/data/tokenizer.h"
#include "framework/store/checkpoint_directory.h"
#include "launch/tools/commands/command_line.h"
#include "launch/train/decoder.h"
#include "launch/train/job.h"
#include "launch/train/model.h"
#include "launch/train/resumption.h"
#include "launch/train/sampler.h"
#include "layers/moe/methods.h"

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

/// Those of --prompt, or the lines of --prompts; one empty prompt without both.
std::vector<std::string> prompts_of(const Options& options) {
  std::vector<std::string> prompts = options.texts("prompt");
  if (!options.has("prompts")) return prompts.empty() ? std::vector<std::string>{""} : prompts;
  check(
      prompts.empty(), Fault::request,
      "generate: --prompt came beside --prompts; expected one of them, as --prompts FILE holds all prompts");
  const std::string path = options.text("prompts", "");
  const MappedFile file(path, "the prompts");
  std::string_view left = file.bytes();
  while (!left.empty()) {
    const std::size_t end = std::min(left.find('\n'), left.size());
    std::string_view line = left.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    prompts.emplace_back(line);
    left.remove_prefix(std::min(end + 1, left.size()));
  }
  check(!prompts.empty(), Fault::data, "generate: ", path, " is empty; expected a prompt in each line");
  return prompts;
}

/// One text that grows, and what of it was not printed yet.
class GrowingText {
 public:
  GrowingText(const Tokenizer& tokenizer, const std::string& prompt, bool document_start,
              const RandomKey& draws)
      : tokenizer_(&tokenizer), stream_(tokenizer), draws_(draws), context_(tokenizer.encode(prompt)) {
    waiting_ = stream_.push(context_);
    // In training this token opens each document, so a text that begins where a document does begins with it.
    if (context_.empty() || document_start) context_.insert(context_.begin(), tokenizer.end_of_document());
  }

  const std::vector<std::int32_t>& context() const { return context_; }
  bool ended() const { return ended_; }

  /// Draws the next token; the text ends with an end of document, or with the last of `tokens` tokens.
  void grow(const std::vector<double>& logits, const SamplingOptions& sampling, std::int64_t tokens) {
    const std::int32_t token =
        sample(logits, tokenizer_->vocab_size(), sampling, draws_, static_cast<std::uint64_t>(drawn_++));
    ended_ = token == tokenizer_->end_of_document() || drawn_ == tokens;
    if (token != tokenizer_->end_of_document()) {
      context_.push_back(token);
      waiting_ += stream_.push({&token, 1});
    }
    if (ended_) waiting_ += stream_.finish() + "\n";
  }
  std::string take_waiting() { return std::exchange(waiting_, {}); }

 private:
  const Tokenizer* tokenizer_;
  TextStream stream_;
  RandomKey draws_;
  std::vector<std::int32_t> context_;
  std::string waiting_;
  std::int64_t drawn_ = 0;
  bool ended_ = false;
};

/// Prints texts in order: each as it grows, when those before it have ended.
class Printer {
 public:
  explicit Printer(std::vector<GrowingText>& texts) : texts_(texts) {}
  void print() {
    for (; at_ < texts_.size(); ++at_) {
      if (texts_.size() > 1 && !std::exchange(headed_, true))
        std::cout << "== prompt " << at_ + 1 << " of " << texts_.size() << " ==\n";
      std::cout << texts_[at_].take_waiting();
      if (!texts_[at_].ended()) break;
      headed_ = false;
    }
    std::cout << std::flush;
  }

 private:
  std::vector<GrowingText>& texts_;
  std::size_t at_ = 0;
  bool headed_ = false;
};

/// The most tokens that each text can come to, as far as the cache has to know: none of a text that is longer
/// than the window from the start.
std::vector<std::int64_t> longest(const std::vector<GrowingText>& texts, std::int64_t tokens,
                                  std::int64_t window) {
  std::vector<std::int64_t> lengths;
  for (const GrowingText& text : texts) {
    const auto begin = static_cast<std::int64_t>(text.context().size());
    lengths.push_back(begin > window ? 0 : begin + std::min(tokens, window));
  }
  return lengths;
}

}  // namespace

void check_cache_fits(std::size_t cache, std::size_t model, std::size_t texts, const MachineFacts& machine) {
  // The model is in memory already, so a limit of the control group counts it too.
  double free = std::numeric_limits<double>::infinity();
  if (machine.available > 0) free = static_cast<double>(machine.available);
  if (machine.memory_limit > 0)
    free = std::min(free, static_cast<double>(machine.memory_limit) - static_cast<double>(model));
  check(static_cast<double>(cache) <= free, Fault::machine, "generate: the key-value cache of ",
        counted(static_cast<std::int64_t>(texts), "prompt"), " takes ",
        bytes_text(static_cast<double>(cache)), ", but this machine has ", bytes_text(std::max(free, 0.0)),
        " left; give fewer prompts at a time, or smaller --tokens");
}

int run_generate(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "generate",
       .positionals = "CHECKPOINT",
       .summary = "Samples text from a checkpoint.",
       .options = {{"prompt", "TEXT", "what the text begins with; without it, the beginning of a document",
                    true},
                   {"prompts", "FILE",
                    "a prompt in each line of FILE; an empty line is the beginning of a document"},
                   {"document-start", "",
                    "treat each prompt as the beginning of a document; without it, nothing is put before it"},
                   {"tokens", "N", "tokens to sample (default 200); an end of document ends sooner"},
                   {"temperature", "X", "0 takes the most likely token; default 0.8"},
                   {"top-k", "K", "draw among the K most likely tokens only; 0, the default: all"},
                   {"tokenizer", "PATH", "the tokenizer of the model, where it is not at the recipe's place"},
                   {"seed", "N",
                    "the same seed gives the same texts (default 1234); each prompt has draws of its own"},
                   {"device", "NAME", "cpu or cuda; without it, what the model was trained on"}},
       .more =
           "CHECKPOINT is a step-... directory, a checkpoints directory or a run directory (its newest "
           "good one).\n"
           "The model sees at most the sequence length it was trained with. In a longer text every token "
           "gets "
           "another\nposition, so all of them are computed anew for each new one.\n"
           "Several prompts are computed together. They are printed in order, each below a line with its "
           "number.\n\n"
           "Keys and values of attention are kept in a cache, whose memory is taken at the start. Each "
           "prompt "
           "takes\n2 x layers x num_key_value_heads x head_dim x bytes of a number x tokens. Its tokens are "
           "those of the prompt\nplus N, and at most the sequence length. A cache that the machine has no "
           "memory for is refused.\n\n"
           "Examples:\n"
           "  conclave generate runs/quickstart --prompt \"In the beginning\"\n"
           "  conclave generate runs/quickstart --prompt \"def \" --temperature 0 --tokens 100\n"
           "  conclave generate runs/quickstart --prompt \"The \" --document-start\n"
           "  conclave generate runs/quickstart --prompt \"The \" --prompt \"A \" --tokens 50\n"},
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
  const std::vector<std::string> prompts = prompts_of(options);

  choose_threads(*self_communicator(), 0);
  const CheckpointReader checkpoint(*find_checkpoint(path).path, Verify::nothing);
  Recipe recipe = recipe_of(checkpoint);
  // Places are shared out in whole sequences; text that is still growing drops nothing.
  recipe.model.moe.capacity_factor = 0;
  const auto tokenizer = tokenizer_of(checkpoint, recipe, options);
  const DeviceKind device = device_of(options, recipe);
  Model model(recipe, Mesh::alone(), choose_device(*self_communicator(), device));
  load_model(checkpoint, model);

  const RandomKey key = RandomKey(sampling.seed).with("generate");
  std::vector<GrowingText> texts;
  for (std::size_t i = 0; i < prompts.size(); ++i)
    texts.emplace_back(*tokenizer, prompts[i], options.has("document-start"), i == 0 ? key : key.with(i));
  const std::int64_t window = recipe.data.sequence_length;
  const std::vector<std::int64_t> lengths = longest(texts, tokens, window);
  const std::string reason = looks_at_other_tokens(recipe.model.moe);
  if (reason.empty()) {
    const std::size_t bytes = Decoder::cache_bytes(model.transformer, window, lengths);
    if (device != DeviceKind::cuda)
      check_cache_fits(bytes, model.parameters.values().bytes(), texts.size(), read_machine());
    if (texts.size() > 1)
      std::cerr << texts.size() << " prompts; the key-value cache takes "
                << bytes_text(static_cast<double>(bytes)) << ".\n";
  } else {
    std::cerr << printable(reason) << ". So every token computes all tokens before it anew.\n";
  }
  Decoder decoder(model.transformer, window, lengths, reason.empty() ? Cache::on : Cache::off);
  Printer printer(texts);
  while (true) {
    printer.print();
    std::vector<Decoder::Context> growing;
    for (std::size_t i = 0; i < texts.size(); ++i)
      if (!texts[i].ended()) growing.push_back({i, texts[i].context()});
    if (growing.empty()) return 0;
    const std::vector<std::vector<double>> logits = decoder.next_logits(growing);
    for (std::size_t i = 0; i < growing.size(); ++i) texts[growing[i].text].grow(logits[i], sampling, tokens);
  }
}

}  // namespace conclave
