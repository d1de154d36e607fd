// This header puts a value of foreign JSON into a sentence. dump() would recurse, so a deeply nested value
// would end the process. It also throws where a text is not UTF-8.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace conclave {

/// A number, text or literal as JSON writes it. A list or an object is only called so.
inline std::string text_of(const nlohmann::json& value) {
  if (value.is_structured()) return value.is_array() ? "a list" : "an object";
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace conclave
