// Metaspace: what marks spaces in a vocabulary of characters, as SentencePiece does. Text to encode has a
// mark in the place of each space, and perhaps one before it. Text that was decoded has spaces again.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace conclave {

/// The pre-tokenizer of this name in the library `tokenizers`.
struct Metaspace {
  enum class Prepend { never, first, always } prepend = Prepend::always;
  std::string mark = "\u2581";
  bool splits = true;  // each mark begins a word

  /// Hands out the words of a piece. `is_first`: the text begins with it.
  void split(std::string_view piece, bool is_first, const std::function<void(std::string_view)>& take) const;
};

/// Returns what a field of the file describes, or nothing where it is no Metaspace.
std::optional<Metaspace> metaspace(const nlohmann::json& field);

/// How tokens of characters become text: marks become spaces, and spaces at the beginning are taken off.
struct CharacterDecoder {
  std::string mark = "\u2581";
  std::size_t strip = 0;                  // so many spaces at the beginning of the text
  bool first_token_has_no_marks = false;  // the decoder Metaspace takes all of them off
};

/// Returns what the field `decoder` describes, or nothing where it is another.
std::optional<CharacterDecoder> character_decoder(const nlohmann::json& field);

}  // namespace conclave
