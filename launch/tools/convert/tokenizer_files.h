// The tokenizer files of an exported model: files with which transformers encodes the same ids. They put
// nothing before or behind a text. A new kind of tokenizer is a branch here and in imported_tokenizer.h.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "launch/tools/convert/token_roles.h"

namespace conclave {

/// Writes the files of a tokenizer (load_tokenizer's name) and the chat templates beside it, and returns its
/// roles. Throws Fault::request where it has more ids than the model.
TokenRoles export_tokenizer(const std::string& name, std::int64_t vocab_size, std::int64_t sequence_length,
                            const std::filesystem::path& directory,
                            const std::function<void(const std::string&)>& say);

/// Copies all files that belong to a tokenizer and lie beside it, chat templates among them.
void copy_tokenizer_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace conclave
