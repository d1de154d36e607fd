// Text as one word of a shell, for hints that a user may paste.
#pragma once

#include <string>

namespace conclave {

/// The text itself where a shell takes it as one word, else in single quotes: runs/a b -> 'runs/a b'.
std::string shell_word(const std::string& text);

}  // namespace conclave
