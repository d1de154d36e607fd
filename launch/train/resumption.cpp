#include "launch/train/resumption.h"

#include <algorithm>
#include <utility>

#include "framework/base/paths.h"
#include "framework/base/text.h"
#include "framework/data/batch_ramp.h"
#include "framework/data/tokenizer.h"
#include "framework/recipe/key.h"
#include "framework/recipe/nearest.h"
#include "launch/train/model.h"
#include "launch/train/recipe_text.h"

namespace conclave {
namespace {

constexpr const char* position_key = "data_position";
constexpr const char* tokenizer_key = "tokenizer_fingerprint";

/// "" where it cannot be read: token files that came without a description need no tokenizer.
std::string fingerprint_if_readable(const std::string& tokenizer) {
  try {
    return tokenizer_fingerprint(tokenizer);
  } catch (const Error&) {
    return "";
  }
}

/// A checkpoint beside the recipe that shall go on with it.
struct Comparison {
  const CheckpointReader& checkpoint;
  const Recipe& after;
  Recipe before = recipe_of(checkpoint);
  DataPosition position = data_position_of(checkpoint);

  bool something_was_drawn() const {
    return std::any_of(position.datasets.begin(), position.datasets.end(),
                       [](const DatasetPosition& one) { return one.drawn > 0; });
  }
};

/// The tokenizer is its file's content, wherever that lies. Where one of the two is not known, the names
/// decide, and a run that has drawn nothing yet, such as an imported model, may name any.
std::vector<KeyChange> tokenizer_changes(const Comparison& c) {
  const std::string &before = c.before.data.tokenizer, &after = c.after.data.tokenizer;
  const std::string old_print =
      c.checkpoint.has(tokenizer_key) ? recorded_tokenizer(c.checkpoint) : fingerprint_if_readable(before);
  const std::string new_print = fingerprint_if_readable(after);
  if (old_print.empty() || new_print.empty()) {
    if (before == after || !c.something_was_drawn()) return {};
    return {{"data.tokenizer", before, after}};
  }
  if (old_print == new_print) return {};
  return {
      {"data.tokenizer", join_text(before, " (", old_print, ")"), join_text(after, " (", new_print, ")")}};
}

std::vector<KeyChange> weight_changes(const Comparison& c) {
  std::vector<KeyChange> changes;
  for (const KeyChange& change : changes_between(c.before, c.after))
    if (change.key != "data.tokenizer" && gives_weights_their_meaning(change.key)) changes.push_back(change);
  for (KeyChange& change : tokenizer_changes(c)) changes.push_back(std::move(change));
  return changes;
}

std::vector<KeyChange> count_changes(const Comparison& c, const TrainingData& data) {
  if (!c.something_was_drawn()) return {};
  std::vector<KeyChange> changes;
  for (const KeyChange& change : changes_between(c.before, c.after))
    if (gives_counts_their_meaning(change.key)) changes.push_back(change);
  const std::vector<DatasetPosition> list = data.listed().datasets;
  for (const std::size_t index : compare_datasets(c.position.datasets, list).rewritten) {
    const DatasetPosition& now = list[index];
    const auto before = std::find_if(
        c.position.datasets.begin(), c.position.datasets.end(),
        [&](const DatasetPosition& one) { return one.share > 0 && same_path(one.path, now.path); });
    changes.push_back({join_path(join_path("data.train", std::to_string(index)), "path"),
                       join_text(now.path, ".idx with checksum ", before->index_checksum),
                       join_text("the same file with ", now.index_checksum, ", which is another text")});
  }
  return changes;
}

/// "recipe.yaml:12: " where the key was set in a file or an override, or "".
std::string place_of(const Recipe& recipe, const std::string& key) {
  const auto found = recipe.places.of_key.find(key);
  return found == recipe.places.of_key.end() ? "" : found->second + ": ";
}

void refuse(const Comparison& c, const std::vector<KeyChange>& changes) {
  std::string lines;
  std::vector<std::string> keys;
  for (const KeyChange& change : changes) {
    if (accepts_change(c.after, change.key)) continue;
    lines += join_text("\n  ", place_of(c.after, change.key), change.key, ": ", change_text(change));
    keys.push_back(change.key);
  }
  check(keys.empty(), Fault::request, "the recipe contradicts ", c.checkpoint.path().string(),
        ", from which this run would go on; what the checkpoint holds would mean something else:", lines,
        "\nPut the old values back, choose another output, or, where the change is meant, add "
        "checkpoint.accept_changes=[",
        join_words(keys), "]");
}

std::vector<std::string> told(const Comparison& c, const std::vector<KeyChange>& changes) {
  std::vector<std::string> sentences;
  for (const KeyChange& change : changes)
    sentences.push_back(join_text("Changed since ", c.checkpoint.path().filename().string(), ": ", change.key,
                                  ": ", change_text(change),
                                  accepts_change(c.after, change.key) ? " (accepted)" : ""));
  return sentences;
}

void tell_datasets(const Comparison& c, const TrainingData& data, std::vector<std::string>& sentences) {
  const std::vector<DatasetPosition> list = data.listed().datasets;
  const DatasetChanges changes = compare_datasets(c.position.datasets, list);
  if (!c.something_was_drawn()) return;
  for (const std::size_t index : changes.added)
    sentences.push_back(join_text("The dataset ", list[index].path,
                                  " is new to this run and begins with its first sequence."));
  for (const std::size_t index : changes.left)
    sentences.push_back(join_text("The dataset ", c.position.datasets[index].path,
                                  " is in data.train no more; it has given ",
                                  counted(c.position.datasets[index].drawn, "sequence"), "."));
}

}  // namespace

std::string recorded_tokenizer(const CheckpointReader& checkpoint) {
  return checkpoint.has(tokenizer_key) ? checkpoint.text(tokenizer_key) : "";
}

DataPosition data_position_of(const CheckpointReader& checkpoint) {
  if (checkpoint.has(position_key))
    return parse_data_position(checkpoint.text(position_key),
                               join_text("Checkpoint ", checkpoint.path().string(), ": ", position_key));
  const Recipe recipe = recipe_of(checkpoint);
  std::int64_t sequences = checkpoint.integer("sequences_skipped");
  for (std::int64_t step = 0; step < checkpoint.step(); ++step)
    sequences += batch_size_at(recipe.training, step);
  return implied_position(recipe.data, sequences);
}

std::function<Attributes(std::int64_t steps_done)> data_attributes(const Recipe& recipe, TrainingData& data) {
  return [&data, print = fingerprint_if_readable(recipe.data.tokenizer)](std::int64_t steps_done) {
    Attributes attributes;
    attributes[position_key] = to_json(data.position(steps_done));
    attributes[tokenizer_key] = print;
    return attributes;
  };
}

std::vector<std::string> resume_data(const CheckpointReader& checkpoint, const Recipe& recipe,
                                     TrainingData& data) {
  const Comparison comparison{checkpoint, recipe};
  std::vector<KeyChange> grave = weight_changes(comparison);
  for (KeyChange& change : count_changes(comparison, data)) grave.push_back(std::move(change));
  refuse(comparison, grave);
  // A tokenizer or dataset may have changed under its old name.
  std::vector<KeyChange> changes = changes_between(comparison.before, recipe);
  for (KeyChange& change : grave)
    if (std::none_of(changes.begin(), changes.end(),
                     [&](const KeyChange& one) { return one.key == change.key; }))
      changes.push_back(std::move(change));
  std::vector<std::string> sentences = told(comparison, changes);
  tell_datasets(comparison, data, sentences);
  data.go_on(checkpoint.step(), comparison.position);
  return sentences;
}

std::vector<std::string> take_data(const CheckpointReader& checkpoint, const Recipe& recipe,
                                   TrainingData& data) {
  const std::vector<std::string>& things = recipe.checkpoint.take;
  const auto takes = [&](const char* thing) {
    return std::find(things.begin(), things.end(), thing) != things.end();
  };
  const Comparison comparison{checkpoint, recipe};
  std::vector<std::string> sentences;
  if (takes("parameters")) sentences = told(comparison, weight_changes(comparison));
  if (!takes("data_position")) return sentences;
  refuse(comparison, count_changes(comparison, data));
  for (const std::string& sentence : told(comparison, count_changes(comparison, data)))
    sentences.push_back(sentence);
  tell_datasets(comparison, data, sentences);
  data.go_on(0, comparison.position);
  return sentences;
}

}  // namespace conclave
