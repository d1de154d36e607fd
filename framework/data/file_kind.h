// The kinds of files that are given where others belong, for sentences that help: "a NumPy array".
#pragma once

#include <string>
#include <string_view>

namespace conclave {

/// The kind of a file by its first bytes, where they say it: archives, tables, other programs' token files.
/// Empty where they do not, or where the content is text.
std::string kind_of_content(std::string_view bytes);

/// Says how to make the token files of a prefix that are not there.
std::string how_to_make_tokens(const std::string& prefix);

/// Throws a Fault where something else stands in place of PREFIX.bin and PREFIX.idx, and says what to do.
/// That may be one of the pair with its ending, another program's token file, or text.
void refuse_foreign_tokens(const std::string& prefix);

}  // namespace conclave
