// Text from outside (paths, names in recipes and foreign files) as a terminal may show it.
#pragma once

#include <string>
#include <string_view>

namespace conclave {

/// The text with its control characters as "\x1b", so that no name moves the cursor, changes colours or sets
/// a title. Bytes that are not UTF-8 are escaped too, since old terminals take them for control characters.
/// Ends of lines and tabs stay.
std::string printable(std::string_view text);

}  // namespace conclave
