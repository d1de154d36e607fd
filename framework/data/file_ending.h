// Endings of file names, in capital letters or not.
#pragma once

#include <algorithm>
#include <string_view>

namespace conclave {

/// `ending` in small letters.
inline bool has_ending(std::string_view path, std::string_view ending) {
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; };
  return path.size() > ending.size() &&
         std::equal(ending.begin(), ending.end(), path.end() - static_cast<std::ptrdiff_t>(ending.size()),
                    [&](char of_ending, char of_path) { return same(of_path, of_ending); });
}

/// The name without an ending of a compressed file: corpus.jsonl.gz is corpus.jsonl.
inline std::string_view without_compression_ending(std::string_view path) {
  for (const std::string_view ending : {".gz", ".zst", ".zstd", ".xz"})
    if (has_ending(path, ending)) return path.substr(0, path.size() - ending.size());
  return path;
}

}  // namespace conclave
