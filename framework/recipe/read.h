// Keys are read strictly. An unknown key, a duplicate key, a wrong type or an impossible value is an error.
// The error names the file and line, the key, what came and what is valid.
#pragma once

#include <string>

#include "framework/recipe/places.h"
#include "framework/recipe/schema.h"
#include "framework/recipe/yaml_tree.h"

namespace conclave {

/// A ReadTarget is an object, its schema, and the places of its keys. It owns none of them.
struct ReadTarget {
  SectionReference object;
  const Schema& schema;
  KeyPlaces& places;
};

/// Reads a YAML text over the object's present values. The source stands where a file's name would in errors.
void read_text(const ReadTarget& target, const std::string& text, const std::string& source);
void read_tree(const ReadTarget& target, const YamlNode& root, const std::string& source);

/// The text of a file, up to a byte more than a recipe may have. Fault::request where it cannot be read.
std::string read_recipe_file(const std::string& path);

}  // namespace conclave
