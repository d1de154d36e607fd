// AddedTokens are the tokens of a tokenizer.json that are found in text as they stand, before any other rule.
// The library `tokenizers` finds them in the same way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace conclave {

struct AddedToken {
  std::string content{};
  std::int32_t id = -1;
  bool special = false;                          // stands for no text when ids are decoded
  bool single_word = false;                      // only where no word character is its neighbour
  bool left_strip = false, right_strip = false;  // takes white space beside it
  bool normalized = true;                        // is looked for in normalized text
};

class AddedTokens {
 public:
  /// The content of each token is searched for; among equal ones the first counts. None may be empty.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  /// Hands parts of the text to `take(std::string_view, const AddedToken*)` in order. Text between added
  /// tokens comes with null, and an added token comes without text. Where several begin at one place the
  /// longest counts.
  template <class Take>
  void split(std::string_view text, const Take& take) const {
    if (tokens_.empty()) return text.empty() ? void() : take(text, nullptr);
    std::size_t done = 0, from = 0;
    while (const AddedToken* token = next(text, from)) {
      std::size_t end = from, begin = end - token->content.size();
      if (!stands_alone(*token, text, begin, end)) continue;
      begin = stripped_begin(*token, text, begin, done);
      end = stripped_end(*token, text, end);
      if (done < begin) take(text.substr(done, begin - done), nullptr);
      take(std::string_view(), token);
      done = end;
    }
    if (done < text.size()) take(text.substr(done), nullptr);
  }

 private:
  /// The first token at or after `from`, which becomes its end; null when there is none.
  const AddedToken* next(std::string_view text, std::size_t& from) const;
  static bool stands_alone(const AddedToken& token, std::string_view text, std::size_t begin,
                           std::size_t end);
  static std::size_t stripped_begin(const AddedToken& token, std::string_view text, std::size_t begin,
                                    std::size_t done);
  static std::size_t stripped_end(const AddedToken& token, std::string_view text, std::size_t end);

  std::vector<AddedToken> tokens_;         // by content
  std::vector<std::size_t> first_, last_;  // of each first byte, its tokens [first, last)
};

}  // namespace conclave
