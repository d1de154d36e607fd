// Datasets are token files cut into sequences and handed out as batches.
// TrainingData mixes and shuffles. The sequence at (step, position) of the global batch depends on the seed,
// the recipe and the position that a run goes on from. It never depends on ranks or micro-batches.
// ValidationData goes through each held-out text in order, to its end.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "framework/data/batch.h"
#include "framework/data/data_position.h"
#include "framework/data/recipe.h"
#include "framework/data/sample_plan.h"
#include "framework/data/separator.h"
#include "framework/data/token_file.h"

namespace conclave {

/// The names that Batch::domain is an index into: those of the training list, then those only in validation.
/// Each comes once, though a list may name a domain several times (shards of a corpus). A dataset without a
/// name gets that of its file.
std::vector<std::string> domain_names(const DataRecipe& data);

/// One token file as a stream of all its documents; sequence j reads [j * length, (j+1) * length) of it.
class Dataset {
 public:
  /// `shard` counts the datasets of the same domain that stand before this one in the recipe's list.
  Dataset(const DatasetRecipe& recipe, const DataRecipe& data, std::int64_t vocabulary,
          TokenizerFacts& tokenizer, std::int64_t shard = 0);

  const std::string& domain() const { return domain_; }
  const std::string& path() const { return file_.prefix(); }
  const std::string& index_checksum() const { return file_.index_checksum(); }
  std::int64_t tokens() const { return file_.tokens(); }
  std::int64_t documents() const { return file_.documents(); }
  std::int64_t full_sequences() const { return (tokens() - 1) / length_; }
  /// True: some token opens documents. False: the beginnings of texts have no target.
  bool has_separator() const { return separator_ != no_separator; }
  /// The last one may be shorter.
  std::int64_t all_sequences() const { return (tokens() - 1 + length_ - 1) / length_; }
  /// The sequence that the sample-th draw of a run is. Each epoch draws all full ones once, in an order of
  /// its own, which no two shards of a domain share.
  std::int64_t shuffled(std::int64_t sample, std::uint64_t seed) const;
  /// The key of that order: the dataset's domain and shard. A run keeps those of the first use, even when the
  /// domain is renamed or the list reordered.
  const std::string& order_domain() const { return order_domain_; }
  std::int64_t order_shard() const { return order_shard_; }
  void keep_order(const std::string& domain, std::int64_t shard) {
    order_domain_ = domain;
    order_shard_ = shard;
  }
  /// Writes a sequence into a row of the batch; past the end of the stream comes padding. With
  /// data.document_mask a document begins with the separator before its text, where there is one.
  void fill(std::int64_t sequence, Batch& batch, std::int64_t row) const;
  /// Adds to count_of_id [vocabulary] how often each id stands among the tokens begin .. end - 1 of the
  /// stream.
  void count_ids(std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& count_of_id) const;
  /// The documents that a sequence has tokens of: "17 (documents 3-5)".
  std::string describe(std::int64_t sequence) const;

 private:
  void part_documents(std::int64_t begin, const std::vector<std::int32_t>& stream, std::int32_t* targets,
                      std::int32_t* starts) const;
  std::string domain_, order_domain_;
  std::int64_t order_shard_;
  std::int64_t length_;
  bool document_mask_;
  TokenFile file_;
  std::int32_t separator_ = no_separator;
};

class TrainingData {
 public:
  TrainingData(const DataRecipe& data, std::int64_t vocabulary, std::uint64_t seed,
               std::function<std::int64_t(std::int64_t step)> batch_size);

  /// The recipe's list as a position, with nothing drawn.
  DataPosition listed() const;
  /// From `step` on the plan goes on where `position` ends, whatever the recipe was before. Every dataset of
  /// the list goes on with its next draw, in the order that it had. The mixture's schedule goes on too where
  /// it is the same; another mixture begins its own.
  void go_on(std::int64_t step, const DataPosition& position);
  /// The position at the beginning of a step, for a checkpoint; go_on takes it.
  DataPosition position(std::int64_t step);
  /// [datasets]; how many sequences each has given at the beginning of a step, over all of a run's parts.
  /// Divided by full_sequences() they are the passes.
  std::vector<std::int64_t> drawn(std::int64_t step);

  /// The sequences first_position .. first_position + sequences - 1 of a step. One caller at a time.
  Batch batch(std::int64_t step, std::int64_t first_position, std::int64_t sequences);
  /// Describes the global batch of a step, one line for each token file that it drew from. A line has the
  /// domain, the path, and the sequences with their documents. One caller at a time.
  std::vector<std::string> describe(std::int64_t step);
  const std::vector<std::string>& domain_names() const { return names_; }
  const std::vector<Dataset>& datasets() const { return datasets_; }
  /// A sentence about each dataset in which the beginnings of texts cannot be trained.
  std::vector<std::string> unopened_texts() const;
  std::int64_t tokens() const;

 private:
  std::int64_t length_, domain_block_;
  bool document_mask_;
  std::uint64_t seed_;
  std::function<std::int64_t(std::int64_t)> batch_size_;
  std::vector<std::string> names_;
  std::vector<Dataset> datasets_;
  std::vector<double> weights_;        // [datasets]
  std::vector<std::int32_t> domain_;   // [datasets]; index into names_
  std::vector<DatasetPosition> left_;  // what the run drew from before and does not now
  SamplePlan plan_;
};

/// The datasets of the recipe's validation list, in its order; several of one domain stay apart.
class ValidationData {
 public:
  ValidationData(const DataRecipe& data, std::int64_t vocabulary);

  std::int64_t datasets() const { return static_cast<std::int64_t>(datasets_.size()); }
  const std::string& domain_name(std::int64_t dataset) const;
  /// The domains of all datasets, each once, in the order in which they come.
  std::vector<std::string> domains() const;
  std::int64_t sequences(std::int64_t dataset) const;
  std::int64_t length() const { return length_; }
  /// Every token after the first is a target exactly once over all sequences, except the first of a text that
  /// no separator opens.
  Batch batch(std::int64_t dataset, std::int64_t first, std::int64_t count) const;
  const std::vector<std::string>& domain_names() const { return names_; }

 private:
  const Dataset& at(std::int64_t dataset) const;
  std::int64_t length_;
  std::vector<std::string> names_;
  std::vector<Dataset> datasets_;
  std::vector<std::int32_t> domain_;  // [datasets]; index into names_
};

}  // namespace conclave
