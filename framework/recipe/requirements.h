// Requirements are conditions on keys, each with a sentence that says where the key was set.
#pragma once

#include <string>

#include "framework/base/error.h"
#include "framework/recipe/places.h"
#include "framework/recipe/visitor.h"

namespace conclave {

class Requirements {
 public:
  /// The object keeps a reference to the places.
  explicit Requirements(const KeyPlaces& places) : places_(places) {}

  bool was_written(const std::string& key) const { return places_.of_key.contains(key); }

  /// Fault::request with the key and the parts as a sentence, where the condition does not hold.
  template <class... Parts>
  void require(bool condition, const std::string& key, const Parts&... parts) const {
    if (!condition) [[unlikely]]
      fail(Fault::request, place(key), key, ": ", parts...);
  }

  /// Checks every key by its own rule, for objects that were built in C++ rather than read.
  void require_rules(const SectionReference& object) const;

 private:
  /// "quickstart.yaml:12: " of the key or of the nearest section around it that was written down.
  std::string place(std::string key) const;

  const KeyPlaces& places_;
};

/// "24 and 32": the multiples on both sides of a number that is none.
std::string nearest_multiples(std::int64_t number, std::int64_t unit);

}  // namespace conclave
