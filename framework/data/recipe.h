// The sections of a recipe about text: `data` and `training.batch_ramp`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace conclave {

class Requirements;
class Visitor;

/// One token file of a domain: PREFIX.bin and PREFIX.idx; a domain may have several.
struct DatasetRecipe {
  std::string path;
  std::string domain;
  double weight = 1.0;  // infinity, written `size`: by its tokens (framework/data/mixture.h)
  bool operator==(const DatasetRecipe&) const = default;
};
void describe(Visitor& v, DatasetRecipe& d);

/// This name stands in metrics.jsonl, beside the losses of the domains.
constexpr const char* mean_of_domains = "mean";

/// The name of a dataset's domain; it is the name of its file where the recipe gives none.
std::string domain_of(const DatasetRecipe& recipe);

struct DataRecipe {
  std::int64_t sequence_length = 256;
  std::string tokenizer = "bytes";  // or the path of a tokenizer.json or a SentencePiece .model
  std::vector<DatasetRecipe> train;
  std::vector<DatasetRecipe> validation;
  bool document_mask = true;
  std::int64_t domain_block = 0;
  bool operator==(const DataRecipe&) const = default;
};
void describe(Visitor& v, DataRecipe& d);
/// Checks what the keys mean together. Fault::request for the first thing that is impossible.
void require_possible(const Requirements& r, const DataRecipe& data);

struct BatchRampRecipe {
  std::int64_t start_batch_size = 0;  // 0: no ramp
  std::int64_t increment = 0;         // sequences added each time
  std::int64_t steps_per_increment = 0;
  bool operator==(const BatchRampRecipe&) const = default;
};
void describe(Visitor& v, BatchRampRecipe& b);

}  // namespace conclave
