// tokenizer.json of the library `tokenizers` for the tokenizers that Conclave has itself. It gives the same
// ids for the same text, and puts nothing around it.
#pragma once

#include <nlohmann/json.hpp>

#include "framework/data/sentencepiece_model.h"
#include "launch/tools/convert/token_roles.h"

namespace conclave {

/// Every byte is a token, under the printable character that GPT-2 gave it.
nlohmann::ordered_json byte_tokenizer_json(const TokenRoles& roles);

/// The model has no rules without an equal there (has_other_rules). A padding token beyond its pieces is
/// added.
nlohmann::ordered_json sentencepiece_json(const SentencePieceModel& model, const TokenRoles& roles);

}  // namespace conclave
