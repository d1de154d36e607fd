// Which keys there are, asked of the schema: is this one, and if not, what was meant.
#pragma once

#include <string>
#include <vector>

namespace conclave {

/// Whether the section at this path ("model.moe", "data.train.0") has a key, section or list of this name.
bool is_key(const std::string& section, const std::string& name);

/// The whole paths of what is in a section; nothing where there is no such section.
std::vector<std::string> keys_in(const std::string& section);

/// Whether the path names a list.
bool is_list_path(const std::string& path);

/// "; did you mean model.moe.num_experts?" with the nearest key of this section or of another one, or else
/// the keys that are valid here.
std::string suggest_key(const std::string& section, const std::string& name);

/// The ways in which an override may go on, for the completion of a shell: keys up to their "=",
/// sections up to the next "."; behind a "=" the words that the key takes. "model.m" gives "model.moe.", and
/// "training.precision=b" gives "training.precision=bf16".
std::vector<std::string> complete_override(const std::string& begun);

}  // namespace conclave
