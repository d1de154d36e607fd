#include "launch/train/decoder.h"

#include <algorithm>

#include "launch/train/sampler.h"

namespace conclave {
namespace {

/// The most tokens that go through the model together, or a window if that is more, so that many prompts need
/// no more memory than one.
constexpr std::int64_t most_tokens = 1024;

}  // namespace

Decoder::Decoder(const Transformer& transformer, std::int64_t window, std::span<const std::int64_t> longest,
                 Cache cache)
    : transformer_(transformer), window_(window) {
  states_.resize(longest.size());
  if (cache == Cache::off) return;
  for (std::size_t text = 0; text < longest.size(); ++text)
    states_[text] = transformer.make_state(std::min(longest[text], window));
}

std::size_t Decoder::cache_bytes(const Transformer& transformer, std::int64_t window,
                                 std::span<const std::int64_t> longest) {
  std::size_t bytes = 0;
  for (const std::int64_t tokens : longest) bytes += transformer.state_bytes(std::min(tokens, window));
  return bytes;
}

std::vector<std::vector<double>> Decoder::next_logits(std::span<const Context> contexts) {
  std::vector<std::vector<double>> logits(contexts.size());
  std::vector<Transformer::Next> together;
  std::vector<std::size_t> places;  // in `contexts`, of those
  std::int64_t rows = 0;
  const auto run = [&] {
    if (together.empty()) return;
    std::vector<std::vector<double>> found = rows_to_host(transformer_.logits(transformer_.extend(together)));
    for (std::size_t i = 0; i < places.size(); ++i) logits[places[i]] = std::move(found[i]);
    together.clear();
    places.clear();
    rows = 0;
  };
  for (std::size_t i = 0; i < contexts.size(); ++i) {
    const auto& [text, tokens] = contexts[i];
    std::optional<SequenceState>& state = states_[text];
    if (static_cast<std::int64_t>(tokens.size()) > window_) state.reset();  // it will never fit again
    if (!state) {
      logits[i] = next_token_logits(transformer_, tokens, window_);
      continue;
    }
    const std::span<const std::int32_t> next = tokens.subspan(static_cast<std::size_t>(state->seen));
    const auto count = static_cast<std::int64_t>(next.size());
    if (rows + count > std::max(most_tokens, window_)) run();
    together.push_back({&*state, next});
    places.push_back(i);
    rows += count;
  }
  run();
  return logits;
}

}  // namespace conclave
