// What an imported model's files say of its tokens beyond the tokenizer itself: their roles, the one before a
// text, and the template of a chat.
#pragma once

#include "launch/tools/convert/chosen_tokenizer.h"
#include "launch/tools/convert/gguf/vocabulary.h"
#include "launch/tools/convert/source_facts.h"

namespace conclave::gguf {

/// The ids of special tokens in the config.json of the imported model.
SpecialIds ids_of_source(const SourceFacts& source);

/// Adds the template that lies beside the tokenizer, and whether a token is put before a text. Training has
/// none there. The tokenizer of an imported model keeps its own, as in an exported directory.
void write_imported_texts(const ChosenTokenizer& chosen, const std::optional<SourceFacts>& source,
                          KeyValues& keys);

}  // namespace conclave::gguf
