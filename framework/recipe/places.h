// KeyPlaces hold where each key was set, so that later errors can name the line.
#pragma once

#include <map>
#include <string>

namespace conclave {

/// The places by the key's path: "quickstart.yaml:12", or the override. They are no part of a recipe's value.
struct KeyPlaces {
  std::map<std::string, std::string> of_key;

  /// "quickstart.yaml:12: " of the key, or "" where it was not written down.
  std::string of(const std::string& key) const {
    const auto found = of_key.find(key);
    return found == of_key.end() ? "" : found->second + ": ";
  }
  bool operator==(const KeyPlaces&) const { return true; }
};

}  // namespace conclave
