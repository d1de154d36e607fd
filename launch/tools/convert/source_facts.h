// SourceFacts: what an imported model says of itself beyond what a recipe has a key for. These are the ids of
// its special tokens, the length it can read, and how it wants to be sampled. A checkpoint keeps them as its
// attribute "source", and so does every checkpoint of a run that began with it. An export hands them on.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "framework/store/checkpoint_file.h"
#include "launch/tools/convert/chat_templates.h"
#include "launch/tools/convert/config_reader.h"
#include "launch/train/rank_parts.h"

namespace conclave {

struct SourceFacts {
  nlohmann::json config;          // all of config.json
  nlohmann::json generation;      // all of generation_config.json; null: there was none
  std::string tokenizer;          // tokenizer_fingerprint of the one that came along; empty: none
  bool is_own_tokenizer = false;  // Conclave itself had exported it, and makes its files again
  ChatTemplates templates;        // those that came with a tokenizer that is no file: bytes

  std::string text() const;
  static std::optional<SourceFacts> of(const CheckpointReader& checkpoint);

  /// Returns the value of max_position_embeddings, or 0.
  std::int64_t longest_sequence() const;
  /// True where config.json has this id as an end of text, alone or in a list, and where it names none.
  bool may_end_with(std::int64_t id) const;
};

/// Reads all but the facts about the tokenizer, which import_tokenizer adds.
SourceFacts read_source_facts(const std::filesystem::path& directory, const ConfigReader& config);

}  // namespace conclave
