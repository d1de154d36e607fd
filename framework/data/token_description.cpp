// PREFIX.json to and from TokenDescription.
#include "framework/data/token_description.h"

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "framework/base/error.h"
#include "framework/data/files.h"

namespace conclave {
namespace {

/// For a number that is whole and fits; a larger one would be read as a float and cast beyond what there is.
std::int64_t whole_number(const nlohmann::json& object, const char* key, const std::string& path) {
  const nlohmann::json& value = object.at(key);
  const bool fits =
      value.is_number_unsigned()
          ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())
          : value.is_number_integer();
  check(fits, Fault::data, "token description ", path, ": ", key, " is ", value.dump(),
        ", expected a whole number below 2^63; write it anew with `conclave tokenize`, or remove it to go "
        "without that check");
  return value.get<std::int64_t>();
}

}  // namespace

std::string to_json(const TokenDescription& description) {
  const nlohmann::ordered_json object{
      {"domain", description.domain},           {"tokenizer", description.tokenizer},
      {"fingerprint", description.fingerprint}, {"vocab_size", description.vocab_size},
      {"documents", description.documents},     {"tokens", description.tokens}};
  // A path that is not UTF-8 must not stop the work.
  return object.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::optional<TokenDescription> read_token_description(const std::string& prefix) {
  const std::string path = prefix + ".json";
  std::error_code code;
  if (!std::filesystem::exists(path, code)) return std::nullopt;
  const MappedFile file(path, "token description");
  try {
    const auto object = nlohmann::json::parse(file.bytes());
    return TokenDescription{.domain = object.value("domain", ""),
                            .tokenizer = object.at("tokenizer").get<std::string>(),
                            .fingerprint = object.value("fingerprint", ""),
                            .vocab_size = whole_number(object, "vocab_size", path),
                            .documents = whole_number(object, "documents", path),
                            .tokens = whole_number(object, "tokens", path)};
  } catch (const nlohmann::json::exception& error) {
    fail(Fault::data, "token description ", path,
         " is not a JSON object with tokenizer, vocab_size, documents and tokens (", error.what(),
         "); write it anew with `conclave tokenize`, or remove it to go without that check");
  }
}

}  // namespace conclave
