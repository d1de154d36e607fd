// The kinds of files that are given where others belong, for sentences that help: "a NumPy array".
#pragma once

#include <string>
#include <string_view>

namespace conclave {

/// By the first bytes, where they say it: archives, tables, other programs' token files. Empty: they do not,
/// or the content is text.
std::string kind_of_content(std::string_view bytes);

/// A Fault that says what stands where PREFIX.bin and PREFIX.idx were expected, and what to do: one of the
/// pair with its ending, another program's token file, text. Returns where there is nothing to tell.
/// Says how to make the token files of a prefix that are not there.
std::string how_to_make_tokens(const std::string& prefix);

void refuse_foreign_tokens(const std::string& prefix);

}  // namespace conclave
