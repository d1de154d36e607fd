// The search: sorted contents, narrowed byte by byte.
#include "framework/data/tokenizer_json/added_tokens.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/data/tokenizer_json/unicode_form.h"

namespace conclave {

AddedTokens::AddedTokens(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), first_(256, 0), last_(256, 0) {
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  const auto same = [](const AddedToken& a, const AddedToken& b) { return a.content == b.content; };
  tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    check(!tokens_[i].content.empty(), "AddedTokens: a token without content came");
    const auto byte = static_cast<unsigned char>(tokens_[i].content[0]);
    if (last_[byte] == 0) first_[byte] = i;
    last_[byte] = i + 1;
  }
}

const AddedToken* AddedTokens::next(std::string_view text, std::size_t& from) const {
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    const auto byte = static_cast<unsigned char>(text[begin]);
    std::size_t low = first_[byte], high = last_[byte];
    const AddedToken* longest = nullptr;
    for (std::size_t depth = 1; low < high; ++depth) {
      // All of [low, high) begin with these `depth` bytes of text; the shortest is the first.
      if (tokens_[low].content.size() == depth) longest = &tokens_[low++];
      if (begin + depth >= text.size()) break;
      const auto wanted = static_cast<unsigned char>(text[begin + depth]);
      const auto at = [&](const AddedToken& token) {
        return static_cast<unsigned char>(token.content[depth]);
      };
      const auto from_here = tokens_.begin() + static_cast<std::ptrdiff_t>(low);
      const auto to_here = tokens_.begin() + static_cast<std::ptrdiff_t>(high);
      const auto least =
          std::partition_point(from_here, to_here, [&](const auto& t) { return at(t) < wanted; });
      const auto most = std::partition_point(least, to_here, [&](const auto& t) { return at(t) <= wanted; });
      low = static_cast<std::size_t>(least - tokens_.begin());
      high = static_cast<std::size_t>(most - tokens_.begin());
    }
    if (longest != nullptr) {
      from = begin + longest->content.size();
      return longest;
    }
  }
  return nullptr;
}

bool AddedTokens::stands_alone(const AddedToken& token, std::string_view text, std::size_t begin,
                               std::size_t end) {
  return !token.single_word ||
         (!ends_with_word_character(text.substr(0, begin)) && !starts_with_word_character(text.substr(end)));
}

std::size_t AddedTokens::stripped_begin(const AddedToken& token, std::string_view text, std::size_t begin,
                                        std::size_t done) {
  if (!token.left_strip) return begin;
  // The token before may have taken the same white space already.
  const std::size_t first = std::min(begin, done);
  return std::max(begin - white_space_at_end(text.substr(first, begin - first)), done);
}

std::size_t AddedTokens::stripped_end(const AddedToken& token, std::string_view text, std::size_t end) {
  return token.right_strip ? end + white_space_at_start(text.substr(end)) : end;
}

}  // namespace conclave
