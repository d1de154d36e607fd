// TextStream: the text of tokens that come one after the other. A character of several tokens is handed out
// when it is whole, and what was handed out never changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "framework/data/tokenizer.h"

namespace conclave {

class TextStream {
 public:
  /// The tokenizer must outlive the stream.
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  /// The text that became certain since the last call; empty in the middle of a character.
  std::string push(std::span<const std::int32_t> tokens);
  /// The rest, which may end in the middle of a character. All parts together are tokenizer.decode of all
  /// tokens.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::int32_t> tokens_;
  std::size_t handed_out_ = 0;  // bytes
};

}  // namespace conclave
