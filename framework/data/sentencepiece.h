// The SentencePiece side of load_tokenizer, kept apart so that only one file includes that library.
#pragma once

#include <memory>
#include <string>

#include "framework/data/tokenizer.h"

namespace conclave {

std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path);

}  // namespace conclave
