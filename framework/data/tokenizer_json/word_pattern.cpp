// PCRE2 behind WordPattern, and what becomes of matches.
#include "framework/data/tokenizer_json/word_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "framework/base/error.h"

namespace conclave {
namespace {

// A pattern that backtracks without end is an error soon, and not a job that hangs.
constexpr std::uint32_t match_limit = 2'000'000;
constexpr std::size_t least_stack = std::size_t{256} << 10, most_stack = std::size_t{8} << 20;
constexpr std::size_t longest_pattern = std::size_t{1} << 16;

std::string message_of(int code) {
  unsigned char text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

std::string_view joined(std::string_view first, std::string_view second) {
  return {first.data(), first.size() + second.size()};  // they are neighbours in one text
}

}  // namespace

struct PatternSearch::State {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = nullptr;  // the machine's, which is small, until a match needs more

  State() {
    check(data != nullptr && context != nullptr, Fault::machine, "no memory for a search with PCRE2");
    pcre2_set_match_limit(context, match_limit);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }

  /// False when there is a larger stack already.
  bool enlarge_stack() {
    if (stack != nullptr) return false;
    stack = pcre2_jit_stack_create(least_stack, most_stack, nullptr);
    pcre2_jit_stack_assign(context, nullptr, stack);
    return stack != nullptr;
  }
};

PatternSearch::PatternSearch() : state_(std::make_unique<State>()) {}
PatternSearch::~PatternSearch() = default;

struct WordPattern::Code {
  pcre2_code* compiled = nullptr;
  ~Code() { pcre2_code_free(compiled); }
};

WordPattern::WordPattern(Options options, const std::string& where)
    : options_(std::move(options)), where_(where) {
  const std::string& pattern = options_.pattern;
  check(pattern.size() <= longest_pattern, Fault::data, where_, ": the regular expression has ",
        pattern.size(), " bytes, expected at most ", longest_pattern);
  // Without optimizations of where a match may start, since PCRE2 10.42 with them overlooks matches when it
  // compiles (?>\w+?)\s to machine code; here nearly every place starts a match.
  constexpr std::uint32_t flags =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_START_OPTIMIZE;
  int code = 0;
  PCRE2_SIZE offset = 0;
  auto owner = std::make_shared<Code>();
  owner->compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), flags, &code,
                                  &offset, nullptr);
  const bool compiles = owner->compiled != nullptr;
  check(compiles, Fault::data, where_, ": PCRE2 does not read the regular expression ", pattern, " (",
        compiles ? "" : message_of(code), " at offset ", offset, "); spell it another way");
  pcre2_jit_compile(owner->compiled, PCRE2_JIT_COMPLETE);  // where it cannot, matching is interpreted
  code_ = owner;
}

std::optional<WordPattern::Match> WordPattern::next(std::string_view text, std::size_t& from,
                                                    std::optional<std::size_t> last_end,
                                                    PatternSearch& search) const {
  while (from <= text.size()) {
    PatternSearch::State& state = *search.state_;
    // A view of nothing may have no address, which PCRE2 10.42 refuses.
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.empty() ? "" : text.data());
    // The text is known to be UTF-8; checking all of it for each match would take quadratic time.
    const int code = pcre2_match(code_->compiled, subject, text.size(), from, PCRE2_NO_UTF_CHECK, state.data,
                                 state.context);
    if (code == PCRE2_ERROR_NOMATCH) return std::nullopt;
    if (code == PCRE2_ERROR_JIT_STACKLIMIT && state.enlarge_stack()) continue;
    check(code >= 0, Fault::data, where_, ": matching the regular expression ", options_.pattern,
          " against text of ", text.size(), " bytes failed at offset ", from, " (",
          code < 0 ? message_of(code) : "", "); split the document, or spell the expression another way");
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state.data);
    const Match match{ends[0], ends[1]};
    check(match.begin >= from && match.begin <= match.end, Fault::data, where_, ": the regular expression ",
          options_.pattern, " matches backwards");
    from = match.end;
    if (match.begin != match.end || last_end != match.end) return match;
    do ++from;  // to the next character
    while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80);
  }
  return std::nullopt;
}

std::vector<WordPattern::Piece> WordPattern::merged(std::vector<Piece> pieces) const {
  const bool backwards = options_.behavior == Behavior::merged_with_next;
  if (backwards) std::reverse(pieces.begin(), pieces.end());
  std::vector<Piece> result;
  bool last_matched = false;
  for (const Piece& piece : pieces) {
    const bool joins = options_.behavior == Behavior::contiguous ? piece.is_match == last_matched
                                                                 : piece.is_match && !last_matched;
    last_matched = piece.is_match;
    if (!joins || result.empty())
      result.push_back(piece);
    else
      result.back().text =
          backwards ? joined(piece.text, result.back().text) : joined(result.back().text, piece.text);
  }
  if (backwards) std::reverse(result.begin(), result.end());
  return result;
}

}  // namespace conclave
