// "Did you mean ...?": the edit distance between words and the nearest of a list.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace conclave {

/// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other.
std::size_t edit_distance(const std::string& from, const std::string& to);

/// The candidate nearest to the word, or "" where none is near enough to be what was meant.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

/// "; did you mean 'train'?" or, where nothing is near, "; valid are train, validate".
std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates);

/// "a, b, c"
std::string join_words(const std::vector<std::string>& words);

}  // namespace conclave
