// SentencePiece models. llama.cpp joins pieces by their scores, as SentencePiece's kind bpe does; it does not
// normalise text, and knows no other place of spaces than in front of words.
#include <algorithm>
#include <set>

#include "framework/base/error.h"
#include "launch/tools/convert/gguf/vocabulary.h"

namespace conclave::gguf {
namespace {

using Kind = SentencePieceModel::Kind;

bool has_kind(const SentencePieceModel& model, Kind kind) {
  return std::any_of(model.pieces.begin(), model.pieces.end(),
                     [&](const SentencePieceModel::Piece& piece) { return piece.kind == kind; });
}

void check_rules(const std::string& path, const SentencePieceModel& model) {
  const auto expect = [&](bool holds, const char* reason) {
    check(holds, Fault::request, path, ": ", reason,
          " The ids of a text would be others there; --tokenizer none exports without a tokenizer.");
  };
  expect(model.is_bpe, "it is a SentencePiece model of the kind unigram, and llama.cpp reads each as bpe.");
  expect(model.byte_fallback, "it has no bytes for characters without a piece, which llama.cpp takes then.");
  expect(!model.has_other_rules, "its spaces are no \u2581 in front of words, as they are in llama.cpp.");
  expect(model.character_map.empty(), "it normalises text first, which llama.cpp does not.");
  expect(!model.removes_spaces, "it removes spaces where there are several, which llama.cpp does not.");
  expect(!has_kind(model, Kind::unused), "it has pieces that are not used, which llama.cpp would use.");
  expect(!(model.add_dummy_prefix && has_kind(model, Kind::user_defined)),
         "it has pieces that its user defined, and llama.cpp puts a space behind each of them.");
}

TokenType type_of(Kind kind) {
  switch (kind) {
    case Kind::unknown:
      return TokenType::unknown;
    case Kind::control:
      return TokenType::control;
    case Kind::user_defined:
      return TokenType::user_defined;
    case Kind::byte:
      return TokenType::byte;
    default:
      return TokenType::normal;
  }
}

/// llama.cpp looks for these in text where spaces are still spaces.
std::string with_spaces(std::string text) {
  constexpr std::string_view space = "\u2581";
  for (std::size_t at = 0; (at = text.find(space, at)) != std::string::npos; ++at)
    text.replace(at, space.size(), " ");
  return text;
}

/// llama.cpp joins any two pieces whose texts together are a token, where SentencePiece joins to normal
/// pieces only.
void say_what_text_may_spell(const std::string& path, const SentencePieceModel& model, const Say& say) {
  std::set<std::string> texts;
  for (const SentencePieceModel::Piece& piece : model.pieces) texts.insert(piece.text);
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    if (piece.kind == Kind::normal || piece.kind == Kind::user_defined) continue;
    for (std::size_t at = 1; at < piece.text.size(); ++at)
      if (texts.contains(piece.text.substr(0, at)) && texts.contains(piece.text.substr(at))) {
        say(join_text(path, ": where a text spells ", piece.text,
                      ", llama.cpp takes that for the token; Conclave reads its characters."));
        break;
      }
  }
}

}  // namespace

Vocabulary vocabulary_of_pieces(const SentencePieceModel& model, const std::string& path,
                                const TokenRoles& roles, const Say& say) {
  check_rules(path, model);
  say_what_text_may_spell(path, model, say);
  Vocabulary vocabulary{.model = "llama", .adds_space_prefix = model.add_dummy_prefix, .roles = roles};
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    if (piece.kind == Kind::unknown)
      vocabulary.ids.unknown = static_cast<std::int32_t>(vocabulary.tokens.size());
    vocabulary.tokens.push_back({piece.kind == Kind::user_defined ? with_spaces(piece.text) : piece.text,
                                 type_of(piece.kind), piece.score});
  }
  return vocabulary;
}

}  // namespace conclave::gguf
