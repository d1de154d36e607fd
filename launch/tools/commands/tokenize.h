// `conclave tokenize` turns text or JSON Lines files into token files; it also trains SentencePiece models.
#pragma once

#include <string>
#include <vector>

namespace conclave {

/// `arguments` are those after the word tokenize. Returns the exit code 0 or throws an Error.
int run_tokenize(const std::vector<std::string>& arguments);

}  // namespace conclave
