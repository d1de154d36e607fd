// Writing keys: an object as YAML, and the same with every key explained.
#pragma once

#include <string>

#include "framework/recipe/schema.h"

namespace conclave {

/// The object as YAML, every default written out. Reading it gives exactly the same object.
std::string to_yaml(const SectionReference& object);

/// The same text with a comment beside each key: its meaning and its default. Keys of empty lists stand in
/// comments.
std::string to_annotated_yaml(const SectionReference& object, const SectionReference& defaults);

/// The value of one key, such as "output" or "data.train.0.path": a text as it is, anything else as YAML.
/// Fault::request with the nearest key where there is no such key.
std::string key_text(const SectionReference& object, const Schema& schema, const std::string& path);

}  // namespace conclave
