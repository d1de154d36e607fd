// The tokenizer that comes with a Hugging Face model: which of its files Conclave reads, and whether the
// files agree with each other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "launch/tools/convert/source_facts.h"

namespace conclave {

/// Copies the files of a tokenizer into the run directory. Returns what data.tokenizer becomes: "bytes", or
/// the path of a copied file; empty where the directory has no tokenizer. A tokenizer that Conclave does not
/// read is named all the same, and `say` is told why. `facts` receives which one it is. Throws Fault::data
/// where two of its files tell different things.
std::string import_tokenizer(const std::filesystem::path& directory, const std::filesystem::path& run,
                             std::int64_t vocab_size, SourceFacts& facts,
                             const std::function<void(const std::string&)>& say);

}  // namespace conclave
