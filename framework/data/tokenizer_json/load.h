// The tokenizer.json side of load_tokenizer, for Hugging Face's tokenizers of the byte-level BPE kind. Those
// of GPT-2, Llama 3 and Qwen are examples. The page docs/tokenizers.md says what is read and what is refused.
#pragma once

#include <memory>
#include <string>

#include "framework/data/tokenizer.h"

namespace conclave {

/// Gives the ids of the library `tokenizers` without those that a post-processor adds. Bytes that are not
/// UTF-8 become the tokens of the bytes.
std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& path);

}  // namespace conclave
