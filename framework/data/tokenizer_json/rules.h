// TokenizerRules hold what a tokenizer.json of a BPE kind says, checked. Tokens are of bytes (GPT-2, Llama 3,
// Qwen), or of characters with bytes for those that are missing (Llama 2, Mixtral, Gemma). A rule that
// Conclave does not follow is refused by one sentence that names the field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "framework/data/tokenizer_json/added_tokens.h"
#include "framework/data/tokenizer_json/byte_pairs.h"
#include "framework/data/tokenizer_json/metaspace.h"
#include "framework/data/tokenizer_json/normal_step.h"
#include "framework/data/tokenizer_json/word_pattern.h"

namespace conclave {

struct TokenizerRules {
  std::vector<AddedToken> added;  // in the order in which the library `tokenizers` looks for them
  std::vector<NormalStep> normalizers;
  std::vector<WordPattern> splits;             // one after the other, each on the pieces of the one before
  bool add_prefix_space = false;               // before each piece that has none
  std::optional<WordPattern> words;            // then this, GPT-2's pattern
  std::optional<Metaspace> metaspace;          // in the place of these two, for tokens of characters
  std::optional<CharacterDecoder> characters;  // tokens are of characters
  BytePairRules byte_pairs;
  std::vector<std::string> texts;  // of each id: the bytes it stands for
  std::int32_t end_of_document = -1;
  std::string end_of_document_text;  // its name in the file
};

/// Fault::data when the file cannot be used. The end of a document is the eos_token of a
/// tokenizer_config.json beside it. Else it is the one added token whose name says so, such as <|endoftext|>.
TokenizerRules read_tokenizer_rules(const std::string& path);

/// The eos_token of the tokenizer_config.json beside `path`; empty when there is none.
std::string configured_end_of_document(const std::string& path);

}  // namespace conclave
