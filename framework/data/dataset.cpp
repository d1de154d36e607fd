// Opening checks of a dataset, its cut into sequences with targets and document starts, and the two ways to
// walk it.
#include "framework/data/dataset.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>
#include <utility>

#include "framework/base/error.h"
#include "framework/base/random.h"
#include "framework/base/text.h"
#include "framework/data/file_kind.h"
#include "framework/data/mixture.h"
#include "framework/data/token_description.h"
#include "framework/data/tokenizer.h"

namespace conclave {
namespace {

std::int64_t checked_length(const DataRecipe& data) {
  check(data.sequence_length > 0 && data.sequence_length < std::numeric_limits<std::int32_t>::max(),
        Fault::request, "a data.sequence_length of ", data.sequence_length, " came, expected 1 or more");
  return data.sequence_length;
}

/// What `tokenize` wrote beside the tokens must agree with them and with the recipe, and then vouches for the
/// ids. Without it every id is looked at now: one beyond the vocabulary must not wait until it is drawn.
/// Says whether the recipe's tokenizer is known to have made the file.
bool check_tokens(const TokenFile& file, TokenizerFacts& tokenizer, std::int64_t vocabulary) {
  const auto description = read_token_description(file.prefix());
  if (!description) {
    file.check_all_ids();
    return false;
  }
  const std::string path = file.prefix() + ".json";
  check(description->tokens == file.tokens() && description->documents == file.documents(), Fault::data, path,
        " describes ", counted(description->documents, "document"), " with ",
        counted(description->tokens, "token"), ", but ", file.prefix(), ".idx has ", file.documents(),
        " with ", file.tokens(), "; the files do not belong together");
  const bool fingerprinted = !description->fingerprint.empty();
  const bool same = fingerprinted ? description->fingerprint == tokenizer.fingerprint()
                                  : description->tokenizer == tokenizer.name();
  check(same, Fault::data, path, " says that the tokens were made with the tokenizer ",
        description->tokenizer, ", but the recipe's data.tokenizer ", tokenizer.name(),
        " is another one; name the same, or run `conclave tokenize` again");
  check(description->vocab_size <= vocabulary, Fault::data, path, " says that the tokenizer has ",
        description->vocab_size, " entries; model.vocab_size is ", vocabulary, ", expected at least as many");
  return fingerprinted;
}

/// A missing file is said with the key that names it.
void check_is_there(const std::string& path, const std::string& key) {
  std::error_code code;
  if (std::filesystem::exists(path + ".idx", code)) return;
  refuse_foreign_tokens(path);
  fail(Fault::data, key, ": the token index ", path, ".idx cannot be opened: there is no such file. ",
       how_to_make_tokens(path));
}

/// `list` is the key of the recipes: "data.train".
std::vector<Dataset> open_datasets(const std::vector<DatasetRecipe>& recipes, const std::string& list,
                                   const DataRecipe& data, std::int64_t vocabulary) {
  std::vector<Dataset> datasets;
  std::map<std::string, std::int64_t> shards;  // of each domain, so far
  TokenizerFacts tokenizer(data.tokenizer);
  for (const DatasetRecipe& recipe : recipes) {
    check_is_there(recipe.path, join_text(list, ".", datasets.size(), ".path"));
    datasets.emplace_back(recipe, data, vocabulary, tokenizer, shards[domain_of(recipe)]++);
  }
  return datasets;
}

std::vector<std::int32_t> domain_indices(const std::vector<Dataset>& datasets,
                                         const std::vector<std::string>& names) {
  std::vector<std::int32_t> indices;
  for (const Dataset& dataset : datasets)
    indices.push_back(
        static_cast<std::int32_t>(std::find(names.begin(), names.end(), dataset.domain()) - names.begin()));
  return indices;
}

std::vector<double> weights_of(const DataRecipe& data, const std::vector<Dataset>& datasets) {
  check(!data.train.empty(), Fault::request, "data.train is empty; at least one dataset is expected");
  std::vector<std::int64_t> tokens;
  for (const Dataset& dataset : datasets) tokens.push_back(dataset.tokens());
  return mixture_weights(data.train, tokens);
}

Batch empty_batch(std::int64_t sequences, std::int64_t length) {
  const auto places = static_cast<std::size_t>(sequences * length);
  return {.sequences = sequences,
          .length = length,
          .tokens = std::vector<std::int32_t>(places),
          .targets = std::vector<std::int32_t>(places),
          .document_start = std::vector<std::int32_t>(places),
          .domain = std::vector<std::int32_t>(static_cast<std::size_t>(sequences)),
          .drawn = {}};
}

}  // namespace

std::vector<std::string> domain_names(const DataRecipe& data) {
  std::vector<std::string> names;
  for (const auto* list : {&data.train, &data.validation})
    for (const DatasetRecipe& recipe : *list)
      if (std::find(names.begin(), names.end(), domain_of(recipe)) == names.end())
        names.push_back(domain_of(recipe));
  return names;
}

Dataset::Dataset(const DatasetRecipe& recipe, const DataRecipe& data, std::int64_t vocabulary,
                 TokenizerFacts& tokenizer, std::int64_t shard)
    : domain_(domain_of(recipe)),
      order_domain_(domain_),
      order_shard_(shard),
      length_(checked_length(data)),
      document_mask_(data.document_mask),
      file_(recipe.path, vocabulary) {
  separator_ = separator_of(file_, check_tokens(file_, tokenizer, vocabulary), tokenizer);
  check(tokens() >= 2, Fault::data, "the token file ", recipe.path, ".bin holds ", counted(tokens(), "token"),
        "; at least 2 are needed, one to predict and one to predict it from");
}

std::int64_t Dataset::shuffled(std::int64_t sample, std::uint64_t seed) const {
  const auto count = static_cast<std::uint64_t>(full_sequences()), draw = static_cast<std::uint64_t>(sample);
  RandomKey key = RandomKey(seed).with("shuffle").with(order_domain_);
  if (order_shard_ > 0) key = key.with("shard").with(static_cast<std::uint64_t>(order_shard_));
  key = key.with(draw / count);
  return static_cast<std::int64_t>(key.permute(draw % count, count));
}

void Dataset::fill(std::int64_t sequence, Batch& batch, std::int64_t row) const {
  check(sequence >= 0 && sequence < all_sequences(), "Dataset: sequence ", sequence, " came, expected 0 to ",
        all_sequences() - 1);
  const std::int64_t begin = sequence * length_, inputs = std::min(length_, tokens() - 1 - begin);
  std::int32_t* tokens_out = batch.tokens.data() + row * length_;
  std::int32_t* targets = batch.targets.data() + row * length_;
  std::int32_t* starts = batch.document_start.data() + row * length_;

  std::vector<std::int32_t> stream(static_cast<std::size_t>(inputs + 1));
  file_.read(begin, inputs + 1, stream.data());
  std::copy_n(stream.begin(), inputs, tokens_out);
  std::copy_n(stream.begin() + 1, inputs, targets);
  std::fill_n(starts, inputs, 0);
  for (std::int64_t column = inputs; column < length_; ++column) {  // padding: a document of its own each
    tokens_out[column] = targets[column] = -1;
    starts[column] = static_cast<std::int32_t>(column);
  }
  if (document_mask_) part_documents(begin, stream, targets, starts);
}

/// `stream` holds the inputs of a sequence from `begin` on and the token after them.
void Dataset::part_documents(std::int64_t begin, const std::vector<std::int32_t>& stream,
                             std::int32_t* targets, std::int32_t* starts) const {
  const std::int64_t inputs = static_cast<std::int64_t>(stream.size()) - 1;
  for (std::int64_t document = file_.document_of(begin) + 1; document < documents(); ++document) {
    const std::int64_t column = file_.document_begin(document) - begin;
    if (column > inputs) break;
    const bool separated = stream[static_cast<std::size_t>(column - 1)] == separator_;
    const std::int64_t first = separated ? column - 1 : column;
    if (first < inputs) starts[first] = static_cast<std::int32_t>(first);
    // A text that no separator opens cannot be predicted: what stands before it belongs to another one.
    if (!separated) targets[column - 1] = -1;
  }
  for (std::int64_t column = 1; column < inputs; ++column)
    starts[column] = std::max(starts[column], starts[column - 1]);
}

void Dataset::count_ids(std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& count_of_id) const {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(end - begin));
  file_.read(begin, end - begin, ids.data());
  for (const std::int32_t id : ids) ++count_of_id[static_cast<std::size_t>(id)];
}

std::string Dataset::describe(std::int64_t sequence) const {
  const std::int64_t begin = sequence * length_, end = std::min(begin + length_, tokens() - 1);
  const std::int64_t first = file_.document_of(begin), last = file_.document_of(end - 1);
  return first == last ? join_text(sequence, " (document ", first, ")")
                       : join_text(sequence, " (documents ", first, "-", last, ")");
}

TrainingData::TrainingData(const DataRecipe& data, std::int64_t vocabulary, std::uint64_t seed,
                           std::function<std::int64_t(std::int64_t step)> batch_size)
    : length_(checked_length(data)),
      domain_block_(data.domain_block),
      document_mask_(data.document_mask),
      seed_(seed),
      batch_size_(std::move(batch_size)),
      names_(conclave::domain_names(data)),
      datasets_(open_datasets(data.train, "data.train", data, vocabulary)),
      weights_(weights_of(data, datasets_)),
      domain_(domain_indices(datasets_, names_)),
      plan_(weights_, domain_block_, seed_, batch_size_) {
  for (std::size_t d = 0; d < datasets_.size(); ++d)
    check(datasets_[d].full_sequences() > 0, Fault::data, "the token file ", data.train[d].path,
          ".bin holds ", counted(datasets_[d].tokens(), "token"), "; one training sequence needs ",
          length_ + 1, " (data.sequence_length and the token after it)");
}

DataPosition TrainingData::listed() const {
  DataPosition position{.sequence_length = length_,
                        .domain_block = std::max<std::int64_t>(1, domain_block_),
                        .blocks = 0,
                        .datasets = {}};
  for (const Dataset& dataset : datasets_)
    position.datasets.push_back({.index_checksum = dataset.index_checksum(),
                                 .path = dataset.path(),
                                 .domain = dataset.order_domain(),
                                 .shard = dataset.order_shard(),
                                 .drawn = 0,
                                 .share = plan_.shares()[position.datasets.size()]});
  return position;
}

DataPosition TrainingData::position(std::int64_t step) {
  const PlanOrigin origin = plan_.origin_at(step);
  DataPosition position = listed();
  position.blocks = origin.blocks;
  for (std::size_t d = 0; d < datasets_.size(); ++d) position.datasets[d].drawn = origin.drawn[d];
  position.datasets.insert(position.datasets.end(), left_.begin(), left_.end());
  return position;
}

std::vector<std::int64_t> TrainingData::drawn(std::int64_t step) {
  return plan_.origin_at(step).drawn;
}

void TrainingData::go_on(std::int64_t step, const DataPosition& position) {
  const DataPosition now = carry_over(position, listed());
  PlanOrigin origin{.step = step, .blocks = now.blocks, .drawn = {}};
  for (std::size_t d = 0; d < datasets_.size(); ++d) {
    datasets_[d].keep_order(now.datasets[d].domain, now.datasets[d].shard);
    origin.drawn.push_back(now.datasets[d].drawn);
  }
  left_.assign(now.datasets.begin() + static_cast<std::ptrdiff_t>(datasets_.size()), now.datasets.end());
  plan_ = SamplePlan(weights_, domain_block_, seed_, batch_size_, std::move(origin));
}

Batch TrainingData::batch(std::int64_t step, std::int64_t first_position, std::int64_t sequences) {
  Batch batch = empty_batch(sequences, length_);
  for (std::int64_t row = 0; row < sequences; ++row) {
    const SampleId id = plan_.at(step, first_position + row);
    const auto source = static_cast<std::size_t>(id.domain);
    const std::int64_t sequence = datasets_[source].shuffled(id.sample, seed_);
    datasets_[source].fill(sequence, batch, row);
    batch.drawn.push_back({id.domain, id.sample, sequence});
    batch.domain[static_cast<std::size_t>(row)] = domain_[source];
  }
  return batch;
}

std::vector<std::string> TrainingData::describe(std::int64_t step) {
  std::vector<std::string> lines(datasets_.size());
  for (const SampleId& id : plan_.step(step)) {
    const auto source = static_cast<std::size_t>(id.domain);
    const Dataset& dataset = datasets_[source];
    std::string& line = lines[source];
    line += line.empty() ? join_text(dataset.domain(), " (", dataset.path(), "), sequences ") : ", ";
    line += dataset.describe(dataset.shuffled(id.sample, seed_));
  }
  std::erase(lines, "");
  return lines;
}

std::vector<std::string> TrainingData::unopened_texts() const {
  std::vector<std::string> sentences;
  for (const Dataset& dataset : datasets_)
    if (document_mask_ && dataset.documents() > 1 && !dataset.has_separator())
      sentences.push_back(
          join_text("The documents of ", dataset.path(),
                    " end differently, so no token opens them, and the first token of each text "
                    "is not trained (docs/data.md)."));
  return sentences;
}

std::int64_t TrainingData::tokens() const {
  std::int64_t sum = 0;
  for (const Dataset& dataset : datasets_) sum += dataset.tokens();
  return sum;
}

ValidationData::ValidationData(const DataRecipe& data, std::int64_t vocabulary)
    : length_(checked_length(data)),
      names_(conclave::domain_names(data)),
      datasets_(open_datasets(data.validation, "data.validation", data, vocabulary)),
      domain_(domain_indices(datasets_, names_)) {}

const Dataset& ValidationData::at(std::int64_t dataset) const {
  check(dataset >= 0 && dataset < datasets(), "ValidationData: dataset ", dataset, " came, ", datasets(),
        " are there");
  return datasets_[static_cast<std::size_t>(dataset)];
}

const std::string& ValidationData::domain_name(std::int64_t dataset) const {
  return at(dataset).domain();
}

std::vector<std::string> ValidationData::domains() const {
  std::vector<std::string> names;
  for (const Dataset& dataset : datasets_)
    if (std::find(names.begin(), names.end(), dataset.domain()) == names.end())
      names.push_back(dataset.domain());
  return names;
}

std::int64_t ValidationData::sequences(std::int64_t dataset) const {
  return at(dataset).all_sequences();
}

Batch ValidationData::batch(std::int64_t dataset, std::int64_t first, std::int64_t count) const {
  const Dataset& source = at(dataset);
  Batch batch = empty_batch(count, length_);
  for (std::int64_t row = 0; row < count; ++row) source.fill(first + row, batch, row);
  std::fill(batch.domain.begin(), batch.domain.end(), domain_[static_cast<std::size_t>(dataset)]);
  return batch;
}

}  // namespace conclave
