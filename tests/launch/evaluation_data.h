// Two small held-out texts as token files, whose documents are uneven and whose last sequences are padded,
// and a recipe that reads them.
#pragma once

#include <filesystem>

#include "framework/data/token_file.h"
#include "tests/launch/synthetic.h"

namespace conclave::test {

/// Words of `domain` fall into a half of the vocabulary of their own, more often than not.
inline void write_domain(const std::filesystem::path& prefix, std::int64_t vocabulary, int domain,
                         int documents) {
  TokenFileWriter writer(prefix.string(), vocabulary);
  const RandomKey key = RandomKey(17).with(static_cast<std::uint64_t>(domain));
  for (int document = 0; document < documents; ++document) {
    const RandomKey of_document = key.with(static_cast<std::uint64_t>(document));
    std::vector<std::int32_t> tokens;
    for (std::uint64_t i = 0; i < 5 + of_document.below(0, 20); ++i) {
      const auto half = static_cast<std::uint64_t>(vocabulary / 2);
      const bool own = of_document.below(2 * i + 1, 4) != 0;
      tokens.push_back(
          static_cast<std::int32_t>(of_document.below(2 * i + 2, half) + (own == (domain == 1) ? half : 0)));
    }
    writer.append_document(tokens);
  }
  writer.finish({.domain = "d", .tokenizer = "bytes", .fingerprint = "bytes", .vocab_size = vocabulary});
}

/// The tiny recipe with the domains "low" and "high", for training as for validation. Writes them unless
/// another rank does.
inline Recipe recipe_with_domains(const std::filesystem::path& folder, bool writes = true) {
  Recipe recipe = tiny_recipe();
  recipe.model.vocab_size = 64;
  recipe.training.micro_batch_size = 2;
  for (const int domain : {0, 1}) {
    const std::string name = domain == 0 ? "low" : "high";
    if (writes) write_domain(folder / name, recipe.model.vocab_size, domain, 7 + 2 * domain);
    if (writes) write_domain(folder / (name + "-train"), recipe.model.vocab_size, domain, 12);
    recipe.data.validation.push_back({.path = (folder / name).string(), .domain = name});
    recipe.data.train.push_back({.path = (folder / (name + "-train")).string(), .domain = name});
  }
  return recipe;
}

}  // namespace conclave::test
