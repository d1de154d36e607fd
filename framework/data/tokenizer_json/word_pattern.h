// WordPattern: cuts text where a regular expression matches, as the pre-tokenizer Split of the library
// `tokenizers` does. PCRE2 matches, compiled to machine code where the machine allows it.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace conclave {

/// The memory that one thread needs to search; it may serve any pattern, one after the other.
class PatternSearch {
 public:
  PatternSearch();
  PatternSearch(const PatternSearch&) = delete;
  PatternSearch& operator=(const PatternSearch&) = delete;
  ~PatternSearch();

 private:
  friend class WordPattern;
  struct State;
  std::unique_ptr<State> state_;
};

class WordPattern {
 public:
  /// Behavior says what becomes of matches: left out; pieces of their own; joined with the piece before or
  /// after; neighbours of a kind joined.
  enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
  struct Options {
    std::string pattern{};  // PCRE2's
    Behavior behavior = Behavior::isolated;
    bool invert = false;  // what lies between matches counts as the match
  };

  /// `where` begins the sentence of an Error, of Fault::data, when PCRE2 cannot read the pattern.
  WordPattern(Options options, const std::string& where);

  /// Hands the pieces of valid UTF-8 to `take(std::string_view)`, in order; none is empty.
  template <class Take>
  void split(std::string_view text, PatternSearch& search, const Take& take) const;

 private:
  struct Match {
    std::size_t begin, end;
  };
  struct Piece {
    std::string_view text;
    bool is_match;
  };
  struct Code;
  /// Matches as Oniguruma's search for all of them: an empty one at the end of the last one does not count.
  std::optional<Match> next(std::string_view text, std::size_t& from, std::optional<std::size_t> last_end,
                            PatternSearch& search) const;
  std::vector<Piece> merged(std::vector<Piece> pieces) const;

  Options options_;
  std::string where_;
  std::shared_ptr<const Code> code_;
};

template <class Take>
void WordPattern::split(std::string_view text, PatternSearch& search, const Take& take) const {
  const bool streams = options_.behavior == Behavior::isolated || options_.behavior == Behavior::removed;
  const bool removes = options_.behavior == Behavior::removed;
  std::vector<Piece> pieces;  // where what comes later changes them
  const auto piece = [&](std::size_t begin, std::size_t end, bool is_match) {
    const std::string_view part = text.substr(begin, end - begin);
    is_match = is_match != options_.invert;
    if (!streams)
      pieces.push_back({part, is_match});
    else if (!part.empty() && !(removes && is_match))
      take(part);
  };
  std::size_t from = 0, done = 0;
  std::optional<std::size_t> last_end;
  while (const auto match = next(text, from, last_end, search)) {
    if (done != match->begin) piece(done, match->begin, false);
    piece(match->begin, match->end, true);
    done = match->end;
    last_end = done;
  }
  if (done != text.size()) piece(done, text.size(), false);
  if (streams) return;
  for (const Piece& part : merged(std::move(pieces)))
    if (!part.text.empty()) take(part.text);
}

}  // namespace conclave
