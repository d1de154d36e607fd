// The names that `conclave tokenize` may give to what it writes, and what may stand there before.
#pragma once

#include <string>

namespace conclave {

/// Fault::request where the value of the option names a folder, or a file of the pair instead of both.
void check_prefix(const std::string& option, const std::string& prefix);

/// Fault::request where token files of this prefix are there, unless `replace`; and always where a file is
/// there that is none of them.
void check_token_files(const std::string& prefix, bool replace);

/// The same for PREFIX.model of a trained vocabulary.
void check_model_file(const std::string& prefix, bool replace);

}  // namespace conclave
