// The files of a foreign tokenizer tell many things twice. The files tokenizer.json and tokenizer.model have
// the same pieces. The files tokenizer_config.json and added_tokens.json name tokens again, and two files
// name the end of a text. Readers differ in which of them they follow.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace conclave {

/// Throws Fault::data where two of a directory's files tell different things about text. Special tokens stand
/// in no text: where one is not in the file that Conclave reads, `say` is told of it.
void check_tokenizer_spellings(const std::filesystem::path& directory,
                               const std::function<void(const std::string&)>& say);

/// True for a SentencePiece model; some tokenizer.model are of another kind.
bool is_sentencepiece_model(const std::filesystem::path& file);

}  // namespace conclave
