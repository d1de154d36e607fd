#include "launch/convert/tokenizer_files.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "framework/base/error.h"
#include "framework/data/files.h"
#include "framework/data/sentencepiece_model.h"
#include "framework/data/tokenizer.h"
#include "framework/data/tokenizer_json/rules.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"
#include "launch/convert/config_reader.h"
#include "launch/convert/json_file.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kind_key = "conclave_tokenizer";  // of tokenizer_config.json
constexpr const char* end_of_document_text = "<|endoftext|>";
constexpr const char* space = "\u2581";  // what SentencePiece has in place of spaces

std::string utf8(int code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

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

/// Every byte is a token, under the printable character that GPT-2 gave it.
Json byte_tokenizer_json() {
  Json vocabulary = Json::object();
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    vocabulary[utf8(printable ? byte : next++)] = byte;
  }
  const Json bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  return tokenizer_json(Json::array({added_token(256, end_of_document_text, true)}), nullptr, bytes, bytes,
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

Json sentencepiece_json(const SentencePieceModel& model) {
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
  Json normalizers = Json::array(), decoders = Json::array();
  if (model.add_dummy_prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", space}});
  normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space}});
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
  return tokenizer_json(added, {{"type", "Sequence"}, {"normalizers", normalizers}}, nullptr,
                        {{"type", "Sequence"}, {"decoders", decoders}}, rules);
}

void write_tokenizer_config(const fs::path& directory, const char* kind, const std::string& end_of_document,
                            std::int64_t sequence_length, const char* tokenizer_class) {
  write_json(directory / "tokenizer_config.json", {{"tokenizer_class", tokenizer_class},
                                                   {"model_max_length", sequence_length},
                                                   {"clean_up_tokenization_spaces", false},
                                                   {"eos_token", end_of_document},
                                                   {"pad_token", end_of_document},
                                                   {kind_key, kind}});
}

fs::path config_beside(const fs::path& tokenizer) {
  return tokenizer.parent_path() / "tokenizer_config.json";
}

void copy_durably(const fs::path& from, const fs::path& to) {
  write_text_durably(to, MappedFile(from.string(), "file of a tokenizer").bytes());
}

/// A tokenizer.json is Hugging Face's already. Where no file beside it says how a document ends, one is
/// written.
void export_tokenizer_json(const fs::path& path, std::int64_t sequence_length, const fs::path& directory) {
  copy_durably(path, directory / "tokenizer.json");
  if (!configured_end_of_document(path.string()).empty())
    return copy_durably(config_beside(path), directory / "tokenizer_config.json");
  write_tokenizer_config(directory, "tokenizer.json",
                         read_tokenizer_rules(path.string()).end_of_document_text, sequence_length,
                         "PreTrainedTokenizerFast");
}

/// The path of the copy in the run directory; empty where it is of a kind that Conclave does not read, which
/// is said.
std::string import_tokenizer_json(const fs::path& path, const fs::path& run,
                                  const std::function<void(const std::string&)>& say) {
  try {
    load_tokenizer(path.string());
  } catch (const Error& error) {
    say(error.what());
    return "";
  }
  const fs::path copy = run / "tokenizer.json";
  copy_durably(path, copy);
  if (is_there(config_beside(path))) copy_durably(config_beside(path), config_beside(copy));
  return copy.string();
}

}  // namespace

std::optional<std::int32_t> export_tokenizer(const std::string& name, std::int64_t vocab_size,
                                             std::int64_t sequence_length, const fs::path& directory) {
  if (name == "none") return {};
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(name);
  check(tokenizer->vocab_size() <= vocab_size, Fault::request, "The tokenizer ", name, " has ",
        tokenizer->vocab_size(), " ids, but the model ", vocab_size,
        "; give the one that it was trained with: --tokenizer PATH, or none.");
  const std::int32_t end_of_document = tokenizer->end_of_document();
  if (name == "bytes") {
    write_json(directory / "tokenizer.json", byte_tokenizer_json());
    write_tokenizer_config(directory, "bytes", end_of_document_text, sequence_length,
                           "PreTrainedTokenizerFast");
    return end_of_document;
  }
  if (name.ends_with(".json")) {
    export_tokenizer_json(name, sequence_length, directory);
    return end_of_document;
  }
  const MappedFile file(name, "tokenizer model");
  const SentencePieceModel model = parse_sentencepiece_model(file.bytes(), name);
  write_text_durably(directory / "tokenizer.model", file.bytes());
  // Rules of normalisation have no equal in tokenizer.json; with them transformers must read the model
  // itself.
  if (!model.normalises) write_json(directory / "tokenizer.json", sentencepiece_json(model));
  write_tokenizer_config(directory, "sentencepiece",
                         model.pieces.at(static_cast<std::size_t>(end_of_document)).text, sequence_length,
                         model.normalises ? "LlamaTokenizer" : "PreTrainedTokenizerFast");
  return end_of_document;
}

std::string import_tokenizer(const fs::path& directory, const fs::path& run,
                             const std::function<void(const std::string&)>& say) {
  const fs::path config = directory / "tokenizer_config.json", model = directory / "tokenizer.model";
  if (is_there(config) && ConfigReader(config).text_or(kind_key, "") == "bytes") return "bytes";
  if (!is_there(model)) {
    const fs::path json = directory / "tokenizer.json";
    return is_there(json) ? import_tokenizer_json(json, run, say) : "";
  }
  try {
    load_tokenizer(model.string());
  } catch (const Error& error) {
    say(error.what());
    return "";
  }
  const fs::path copy = run / "tokenizer.model";
  copy_durably(model, copy);
  return copy.string();
}

}  // namespace conclave
