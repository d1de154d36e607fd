#include "launch/tools/commands/token_outputs.h"

#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>

#include "framework/base/error.h"
#include "framework/base/text.h"
#include "framework/data/token_description.h"
#include "launch/tools/commands/written_files.h"

namespace conclave {
namespace fs = std::filesystem;
using namespace std::string_view_literals;

namespace {

bool is_there(const std::string& path) {
  std::error_code code;
  return fs::symlink_status(path, code).type() != fs::file_type::not_found;
}

bool is_index(std::string_view beginning) {
  return beginning.starts_with("MMIDIDX\0"sv);
}

/// PREFIX.json, where it is there and describes token files.
std::optional<TokenDescription> description_of(const std::string& prefix) {
  try {
    return read_token_description(prefix);
  } catch (const Error&) {
    return std::nullopt;
  }
}

/// " (english, 60 documents, 1234 tokens)", or nothing.
std::string known_of(const std::string& prefix) {
  const std::optional<TokenDescription> known = description_of(prefix);
  if (!known) return "";
  return join_text(" (", known->domain, ", ", counted(known->documents, "document"), ", ",
                   counted(known->tokens, "token"), ")");
}

}  // namespace

void check_prefix(const std::string& option, const std::string& prefix) {
  const fs::path path(prefix);
  const std::string name = path.filename().string();
  check(!name.empty() && name != "." && name != "..", Fault::request, "tokenize: --", option, " ", prefix,
        " names a folder; expected the common name of the files in it, such as ",
        (path / "english").lexically_normal().string());
  for (const std::string ending : {".bin", ".idx", ".json", ".model"})
    check(!name.ends_with(ending), Fault::request, "tokenize: --", option, " ", prefix,
          " came with the ending of one file; leave it out: ",
          prefix.substr(0, prefix.size() - ending.size()), " is the common name of all that is written");
}

void check_token_files(const std::string& prefix, bool replace) {
  for (const char* ending : {".bin", ".idx", ".json"})
    check(replace || !is_there(prefix + ending), Fault::request, "tokenize: ", prefix, ending,
          " is there already", known_of(prefix), "; choose another place, or add --replace to write it anew");
  refuse_foreign_file("tokenize", prefix + ".idx", "the index of token files", is_index);
  refuse_foreign_file("tokenize", prefix + ".json", "the description of token files",
                      [&](std::string_view) { return description_of(prefix).has_value(); });
  refuse_foreign_file(
      "tokenize", prefix + ".bin", "known as data of token files, as it has no .idx beside it",
      [&](std::string_view) { return is_there(prefix + ".idx") || is_there(prefix + ".json"); });
}

void check_model_file(const std::string& prefix, bool replace) {
  check(replace || !is_there(prefix + ".model"), Fault::request, "tokenize: ", prefix,
        ".model is there already; choose another place, or add --replace to train it anew");
  // A SentencePiece model begins with its first piece, as Protocol Buffers write it.
  refuse_foreign_file("tokenize", prefix + ".model", "a SentencePiece model",
                      [](std::string_view beginning) { return beginning.starts_with('\n'); });
}

}  // namespace conclave
