// Schema says which keys objects of one kind have. It answers whether a path is a key, which key was meant
// where it is none, and how an override may go on.
#pragma once

#include <string>
#include <vector>

#include "framework/recipe/visitor.h"

namespace conclave {

class Schema {
 public:
  /// `defaults`: an object as it is before anything is read. `example`: an override for error messages.
  Schema(const SectionReference& defaults, std::string example);

  const std::string& example() const { return example_; }

  /// True where the section at this path ("model.moe", "data.train.0") has a key, section or list of this
  /// name.
  bool is_key(const std::string& section, const std::string& name) const;
  /// The same for a whole path.
  bool is_key(const std::string& path) const;

  /// The whole paths of what is in a section; nothing where there is no such section.
  std::vector<std::string> keys_in(const std::string& section) const;

  bool is_list(const std::string& path) const;

  /// "; did you mean model.moe.num_experts?" with the nearest key of this section or of another one, or else
  /// the keys that are valid here.
  std::string suggestion(const std::string& section, const std::string& name) const;
  /// The same for a whole path.
  std::string suggestion(const std::string& path) const;

  /// The ways in which an override may go on, for the completion of a shell. They are keys up to their "=",
  /// sections up to the next ".", and behind a "=" the words that the key takes. "model.m" gives
  /// "model.moe.", and "training.precision=b" gives "training.precision=bf16".
  std::vector<std::string> completions(const std::string& begun) const;

  /// The saved numbers that depend on the key at this path; Saved::nothing where there is no such key.
  Saved meaning_given_by(const std::string& path) const;
  /// All keys on which these saved numbers depend, in the order of writing.
  std::vector<std::string> keys_that_give_meaning_to(Saved saved) const;

  /// Every name and every valid word once, sorted; for fuzzers.
  std::vector<std::string> vocabulary() const;

 private:
  struct Entry {
    std::string section;  // an element of a list is written "0", whichever it is
    std::string name;
    bool is_key = false, is_list = false, is_section = false;  // a choice is a key and a section
    std::vector<std::string> words{};                          // the only valid values, where they are few
    std::vector<std::string> words_of_elements{};              // the same for the texts of a list
    KeyFacts facts{};
  };
  class Collector;
  const Entry* find(const std::string& path) const;

  std::vector<Entry> entries_;
  std::string example_;
};

}  // namespace conclave
