// The names that `conclave tokenize` may give to the files that it writes, and the files that may stand there
// before.
#pragma once

#include <string>

namespace conclave {

/// Throws Fault::request where the value of the option names a folder, or a file of the pair instead of both.
void check_prefix(const std::string& option, const std::string& prefix);

/// Throws Fault::request where token files of this prefix are there, unless `replace`. It always throws where
/// a file is there that is not a token file.
void check_token_files(const std::string& prefix, bool replace);

/// Does the same for PREFIX.model of a trained vocabulary.
void check_model_file(const std::string& prefix, bool replace);

}  // namespace conclave
