#include "launch/tools/convert/tokenizer_json_text.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "framework/data/tokenizer_json/byte_alphabet.h"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* space = "\u2581";  // what SentencePiece has in place of spaces

Json added_token(std::int64_t id, const std::string& text, bool special) {
  return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

Json tokenizer_json(Json added, Json normalizer, Json pre_tokenizer, Json decoder, Json model) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", std::move(normalizer)},
          {"pre_tokenizer", std::move(pre_tokenizer)},
          {"post_processor", nullptr},
          {"decoder", std::move(decoder)},
          {"model", std::move(model)}};
}

void add_padding(const TokenRoles& roles, Json& added) {
  if (roles.padding) added.push_back(added_token(roles.padding->id, roles.padding->text, true));
}

}  // namespace

Json byte_tokenizer_json(const TokenRoles& roles) {
  Json vocabulary = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocabulary[character_of_byte(byte)] = byte;
  const Json bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  Json added = Json::array({added_token(roles.separator->id, roles.separator->text, true)});
  add_padding(roles, added);
  return tokenizer_json(std::move(added), nullptr, bytes, bytes,
                        {{"type", "BPE"},
                         {"dropout", nullptr},
                         {"unk_token", nullptr},
                         {"continuing_subword_prefix", nullptr},
                         {"end_of_word_suffix", nullptr},
                         {"fuse_unk", false},
                         {"byte_fallback", false},
                         {"vocab", vocabulary},
                         {"merges", Json::array()}});
}

namespace {

/// The merges whose ranks choose as SentencePiece's scores do: for the pieces from the best score on, every
/// pair of pieces that makes it, the longest left one first.
Json merges_of(const SentencePieceModel& model) {
  std::map<std::string, std::size_t> ids;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) ids.emplace(model.pieces[id].text, id);
  std::vector<std::size_t> order(model.pieces.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return model.pieces[a].score > model.pieces[b].score;
  });
  Json merges = Json::array();
  for (const std::size_t id : order) {
    const SentencePieceModel::Piece& piece = model.pieces[id];
    if (piece.kind != SentencePieceModel::Kind::normal) continue;
    for (std::size_t at = piece.text.size(); at-- > 1;) {
      if ((static_cast<unsigned char>(piece.text[at]) & 0xC0) == 0x80) continue;  // inside a character
      const std::string left = piece.text.substr(0, at), right = piece.text.substr(at);
      if (ids.contains(left) && ids.contains(right)) merges.push_back(left + " " + right);
    }
  }
  return merges;
}

std::string base64(std::string_view bytes) {
  constexpr const char* letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    unsigned three = 0;
    for (std::size_t i = at; i < at + 3; ++i)
      three = three << 8 | (i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u);
    for (int shift = 18; shift >= 0; shift -= 6) text += letters[three >> shift & 63];
  }
  for (std::size_t i = 0; i < (3 - bytes.size() % 3) % 3; ++i) text[text.size() - 1 - i] = '=';
  return text;
}

Json replacement(const char* kind, const char* pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
}

/// In the order in which SentencePiece goes about it: characters, spaces, the one in front.
Json normalizers_of(const SentencePieceModel& model) {
  Json steps = Json::array();
  if (!model.character_map.empty())
    steps.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", base64(model.character_map)}});
  if (model.removes_spaces) {
    steps.push_back(replacement("Regex", R"(\A +| +\z)", ""));
    steps.push_back(replacement("Regex", " {2,}", " "));
  }
  if (model.add_dummy_prefix) steps.push_back({{"type", "Prepend"}, {"prepend", space}});
  steps.push_back(replacement("String", " ", space));
  return steps;
}

}  // namespace

Json sentencepiece_json(const SentencePieceModel& model, const TokenRoles& roles) {
  using Kind = SentencePieceModel::Kind;
  Json added = Json::array(), scored = Json::array(), unknown;
  std::map<std::string, std::int64_t> ids;
  std::int64_t unknown_id = 0;
  for (std::size_t i = 0; i < model.pieces.size(); ++i) {
    const SentencePieceModel::Piece& piece = model.pieces[i];
    const auto id = static_cast<std::int64_t>(i);
    if (piece.kind == Kind::unknown) unknown = piece.text, unknown_id = id;
    if (piece.kind == Kind::unknown || piece.kind == Kind::control || piece.kind == Kind::user_defined)
      added.push_back(added_token(id, piece.text, piece.kind != Kind::user_defined));
    ids.emplace(piece.text, id);
    scored.push_back({piece.text, piece.score});
  }
  if (roles.padding && roles.padding->id >= static_cast<std::int64_t>(model.pieces.size()))
    add_padding(roles, added);
  Json decoders = Json::array();
  decoders.push_back({{"type", "Replace"}, {"pattern", {{"String", space}}}, {"content", " "}});
  decoders.push_back({{"type", "ByteFallback"}});
  decoders.push_back({{"type", "Fuse"}});
  if (model.add_dummy_prefix)
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  const Json rules = model.is_bpe ? Json{{"type", "BPE"},
                                         {"dropout", nullptr},
                                         {"unk_token", unknown},
                                         {"continuing_subword_prefix", nullptr},
                                         {"end_of_word_suffix", nullptr},
                                         {"fuse_unk", true},
                                         {"byte_fallback", model.byte_fallback},
                                         {"vocab", ids},
                                         {"merges", merges_of(model)}}
                                  : Json{{"type", "Unigram"},
                                         {"unk_id", unknown_id},
                                         {"vocab", scored},
                                         {"byte_fallback", model.byte_fallback}};
  return tokenizer_json(added, {{"type", "Sequence"}, {"normalizers", normalizers_of(model)}}, nullptr,
                        {{"type", "Sequence"}, {"decoders", decoders}}, rules);
}

}  // namespace conclave
