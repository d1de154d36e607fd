// The separator is the token behind a document's text. It is the last target of that document and, as an
// input, the first token of the document that follows. So a model learns how texts begin.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "framework/data/token_file.h"

namespace conclave {

/// Answers what datasets ask of the recipe's tokenizer. Its file is read at most once for each question,
/// however many datasets there are.
class TokenizerFacts {
 public:
  explicit TokenizerFacts(std::string name) : name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  const std::string& fingerprint();
  std::int32_t end_of_document();

 private:
  std::string name_;
  std::optional<std::string> fingerprint_;
  std::optional<std::int32_t> end_of_document_;
};

inline constexpr std::int32_t no_separator = -1;

/// Where `tokenizer` is known to have made the file, the separator is its end of a document. In other files
/// it is the token that all of 64 documents, taken evenly from the file, end with. no_separator: they end
/// differently.
std::int32_t separator_of(const TokenFile& file, bool made_by_tokenizer, TokenizerFacts& tokenizer);

}  // namespace conclave
