#include "framework/data/separator.h"

#include <algorithm>

#include "framework/data/tokenizer.h"

namespace conclave {
namespace {

/// The token that all sampled documents end with.
std::int32_t common_end(const TokenFile& file) {
  constexpr std::int64_t most_samples = 64;
  const std::int64_t documents = file.documents(), samples = std::min(documents, most_samples);
  std::int32_t common = no_separator;
  for (std::int64_t i = 0; i < samples; ++i) {
    const std::int64_t document = i * documents / samples, end = file.document_begin(document + 1);
    if (end == file.document_begin(document)) continue;  // an empty one ends with nothing
    std::int32_t last = 0;
    file.read(end - 1, 1, &last);
    if (common != no_separator && last != common) return no_separator;
    common = last;
  }
  return common;
}

}  // namespace

const std::string& TokenizerFacts::fingerprint() {
  if (!fingerprint_) fingerprint_ = tokenizer_fingerprint(name_);
  return *fingerprint_;
}

std::int32_t TokenizerFacts::end_of_document() {
  if (!end_of_document_) end_of_document_ = load_tokenizer(name_)->end_of_document();
  return *end_of_document_;
}

std::int32_t separator_of(const TokenFile& file, bool made_by_tokenizer, TokenizerFacts& tokenizer) {
  return made_by_tokenizer ? tokenizer.end_of_document() : common_end(file);
}

}  // namespace conclave
