#include "launch/tools/convert/tokenizer_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "framework/base/error.h"
#include "framework/data/files.h"
#include "framework/data/sentencepiece_model.h"
#include "framework/data/tokenizer.h"
#include "framework/data/tokenizer_json/rules.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"
#include "launch/tools/convert/chat_templates.h"
#include "launch/tools/convert/json_file.h"
#include "launch/tools/convert/tokenizer_config.h"
#include "launch/tools/convert/tokenizer_json_text.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

using OrderedJson = nlohmann::ordered_json;
using Say = std::function<void(const std::string&)>;

/// Names of tokens for padding in vocabularies that have one.
constexpr const char* padding_names[] = {padding_text, "<pad>", "<|pad|>", "[PAD]"};

constexpr const char* fast_class = "PreTrainedTokenizerFast";

void copy_durably(const fs::path& from, const fs::path& to) {
  write_text_durably(to, MappedFile(from.string(), "file of a tokenizer").bytes());
}

bool is_padding_name(const std::string& text) {
  return std::find(std::begin(padding_names), std::end(padding_names), text) != std::end(padding_names);
}

/// The first row of the model that no id of the tokenizer uses.
std::optional<TokenRole> unused_row(std::int64_t ids, std::int64_t vocab_size) {
  if (ids >= vocab_size) return {};
  return TokenRole{static_cast<std::int32_t>(ids), padding_text};
}

TokenRoles export_bytes(const Tokenizer& tokenizer, std::int64_t vocab_size, std::int64_t sequence_length,
                        const fs::path& directory) {
  const TokenRoles roles{.separator = TokenRole{tokenizer.end_of_document(), "<|endoftext|>"},
                         .padding = unused_row(tokenizer.vocab_size(), vocab_size)};
  write_json(directory / "tokenizer.json", byte_tokenizer_json(roles));
  write_tokenizer_config(directory, "bytes", roles, sequence_length, fast_class);
  return roles;
}

/// A control piece that is named so, or a row behind the pieces, which tokenizer.json alone can add.
std::optional<TokenRole> padding_of(const SentencePieceModel& model, std::int64_t vocab_size) {
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePieceModel::Piece& piece = model.pieces[id];
    if (!is_padding_name(piece.text)) continue;
    if (piece.kind != SentencePieceModel::Kind::control) return {};
    return TokenRole{static_cast<std::int32_t>(id), piece.text};
  }
  if (model.has_other_rules) return {};
  return unused_row(static_cast<std::int64_t>(model.pieces.size()), vocab_size);
}

TokenRoles export_sentencepiece(const std::string& name, const Tokenizer& tokenizer, std::int64_t vocab_size,
                                std::int64_t sequence_length, const fs::path& directory, const Say& say) {
  const MappedFile file(name, "tokenizer model");
  const SentencePieceModel model = parse_sentencepiece_model(file.bytes(), name);
  const std::int32_t end = tokenizer.end_of_document();
  const TokenRoles roles{.separator = TokenRole{end, model.pieces.at(static_cast<std::size_t>(end)).text},
                         .padding = padding_of(model, vocab_size)};
  write_text_durably(directory / "tokenizer.model", file.bytes());
  if (model.has_other_rules)
    say(name +
        ": its spaces are no \u2581 in front of words, for which tokenizer.json has no equal; transformers "
        "reads "
        "tokenizer.model itself, and may give other ids.");
  else
    write_json(directory / "tokenizer.json", sentencepiece_json(model, roles));
  write_tokenizer_config(directory, "sentencepiece", roles, sequence_length,
                         model.has_other_rules ? "LlamaTokenizer" : fast_class);
  return roles;
}

/// True where a post-processor puts tokens around a text.
bool adds_tokens(const OrderedJson& processor) {
  const std::string type = processor.is_object() ? processor.value("type", "") : "";
  if (type == "BertProcessing" || type == "RobertaProcessing") return true;
  if (type == "TemplateProcessing" && processor.contains("single"))
    return std::any_of(processor["single"].begin(), processor["single"].end(),
                       [](const OrderedJson& item) { return item.contains("SpecialToken"); });
  if (type == "Sequence" && processor.contains("processors"))
    return std::any_of(processor["processors"].begin(), processor["processors"].end(), adds_tokens);
  return false;
}

/// The post-processor without its parts that put tokens around a text.
OrderedJson without_added_tokens(const OrderedJson& processor) {
  if (!adds_tokens(processor)) return processor;
  if (processor.value("type", "") != "Sequence") return nullptr;
  OrderedJson rest = processor;
  rest["processors"] = OrderedJson::array();
  for (const OrderedJson& part : processor["processors"])
    if (!adds_tokens(part)) rest["processors"].push_back(part);
  return rest["processors"].empty() ? OrderedJson(nullptr) : rest;
}

/// The file without what puts tokens around a text; nothing where it does not.
std::optional<OrderedJson> without_post_processor(const fs::path& path) {
  const MappedFile file(path.string(), "tokenizer");
  try {
    OrderedJson json = OrderedJson::parse(file.bytes());
    const auto processor = json.find("post_processor");
    if (processor == json.end() || !adds_tokens(*processor)) return {};
    *processor = without_added_tokens(*processor);
    return json;
  } catch (const OrderedJson::exception& error) {
    fail(Fault::data, path.string(),
         ": its post_processor is not what the library tokenizers writes: ", error.what(), ".");
  }
}

/// A token for padding that the files name, unless it is the separator.
std::optional<TokenRole> padding_of(const TokenizerRules& rules, const nlohmann::json& config,
                                    const fs::path& config_file) {
  const std::string configured = special_token(config, "pad_token", config_file);
  for (const AddedToken& token : rules.added) {
    const bool is_named =
        configured.empty() ? token.special && is_padding_name(token.content) : token.content == configured;
    if (is_named && token.id != rules.end_of_document) return TokenRole{token.id, token.content};
  }
  return {};
}

/// A tokenizer.json is Hugging Face's already.
TokenRoles export_tokenizer_json(const fs::path& path, std::int64_t sequence_length,
                                 const fs::path& directory, const Say& say) {
  const TokenizerRules rules = read_tokenizer_rules(path.string());
  const fs::path brought = tokenizer_config_beside(path);
  const bool is_brought = is_there(brought);
  const TokenRoles roles{
      .separator = TokenRole{rules.end_of_document, rules.end_of_document_text},
      .padding =
          padding_of(rules, is_brought ? read_json_object(brought) : nlohmann::json::object(), brought)};
  if (const std::optional<OrderedJson> adapted = without_post_processor(path)) {
    say(path.string() +
        ": its post_processor puts tokens around a text, which is left out, as training has none there.");
    write_json(directory / "tokenizer.json", *adapted);
  } else {
    copy_durably(path, directory / "tokenizer.json");
  }
  if (is_brought)
    write_adapted_tokenizer_config(brought, directory, roles, sequence_length);
  else
    write_tokenizer_config(directory, "tokenizer.json", roles, sequence_length, fast_class);
  return roles;
}

}  // namespace

TokenRoles export_tokenizer(const std::string& name, std::int64_t vocab_size, std::int64_t sequence_length,
                            const fs::path& directory, const Say& say) {
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(name);
  check(tokenizer->vocab_size() <= vocab_size, Fault::request, "The tokenizer ", name, " has ",
        tokenizer->vocab_size(), " ids, but the model ", vocab_size,
        "; give the one that it was trained with: --tokenizer PATH, or none.");
  if (name == "bytes") return export_bytes(*tokenizer, vocab_size, sequence_length, directory);
  const TokenRoles roles =
      name.ends_with(".json")
          ? export_tokenizer_json(name, sequence_length, directory, say)
          : export_sentencepiece(name, *tokenizer, vocab_size, sequence_length, directory, say);
  ChatTemplates::of(fs::path(name).parent_path()).write(directory);
  return roles;
}

void copy_tokenizer_files(const fs::path& from, const fs::path& to) {
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt"})
    if (is_there(from / name)) copy_durably(from / name, to / name);
  ChatTemplates templates = ChatTemplates::of(from);
  templates.in_config = nullptr;  // copied already
  templates.write(to);
}

}  // namespace conclave
