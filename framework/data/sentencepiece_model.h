// The content of a SentencePiece .model, for writing the same tokenizer in another format. It has pieces and
// the few settings that decide how text becomes pieces. The file is a protocol buffer
// (sentencepiece_model.proto of SentencePiece); only these fields are looked at.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace conclave {

struct SentencePieceModel {
  enum class Kind { normal, unknown, control, user_defined, unused, byte };
  struct Piece {
    std::string text;
    float score = 0;
    Kind kind = Kind::normal;
  };
  std::vector<Piece> pieces;  // their places are the ids
  bool is_bpe = false;        // else unigram
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  std::string character_map;     // rules of normalisation, precompiled; empty: none
  bool removes_spaces = false;   // at both ends of a text, and all but one of several
  bool has_other_rules = false;  // spaces are not U+2581, or it stands behind a word
};

/// Fault::data where the bytes are no such model, or one of words or characters.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& file);

}  // namespace conclave
