// Generation: what a token costs after a short and after a long text, with the key-value cache and without.
// Weights are random, which costs the same as trained ones.
#include <algorithm>

#include "framework/base/random.h"
#include "launch/tools/bench/bench.h"
#include "launch/train/decoder.h"
#include "launch/train/sampler.h"
#include "layers/moe/methods.h"

namespace conclave {
namespace {

constexpr std::int64_t few = 10, many = 1000, timed = 16, together = 8;

std::vector<std::int32_t> random_text(const Recipe& recipe, std::uint64_t number, std::int64_t tokens) {
  const RandomKey key = RandomKey(recipe.training.seed).with("bench").with(number);
  std::vector<std::int32_t> text;
  for (std::int64_t i = 0; i < tokens; ++i)
    text.push_back(static_cast<std::int32_t>(
        key.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(recipe.model.vocab_size))));
  return text;
}

/// Texts that grow together by tokens that are known before: so the time is that of the model alone.
class Growth {
 public:
  Growth(const Bench& bench, const Model& model, std::int64_t texts, std::int64_t begin, Cache cache)
      : length_(begin),
        decoder_(model.transformer, bench.recipe.data.sequence_length,
                 std::vector<std::int64_t>(static_cast<std::size_t>(texts), begin + timed), cache) {
    for (std::int64_t i = 0; i < texts; ++i)
      texts_.push_back(random_text(bench.recipe, static_cast<std::uint64_t>(i), begin + timed));
  }
  /// The logits of the next token of every text, then one token more of each.
  void step() {
    std::vector<Decoder::Context> contexts;
    for (std::size_t i = 0; i < texts_.size(); ++i)
      contexts.push_back({i, std::span(texts_[i]).first(static_cast<std::size_t>(length_))});
    decoder_.next_logits(contexts);
    ++length_;
  }

 private:
  std::int64_t length_;
  std::vector<std::vector<std::int32_t>> texts_;
  Decoder decoder_;
};

/// Seconds of one kind of step, by the wall clock and by the processors.
struct Times {
  std::vector<double> wall{}, processor{};
  void measure(std::int64_t steps, double per, const std::function<void()>& step) {
    double seconds = 0;
    const double busy = processor_seconds([&] {
      seconds = seconds_of([&] {
        for (std::int64_t i = 0; i < steps; ++i) step();
      });
    });
    wall.push_back(seconds / per);
    processor.push_back(busy / per);
  }
};

}  // namespace

void bench_generation(Bench& bench) {
  const std::int64_t window = bench.recipe.data.sequence_length;
  // Without a cache there is nothing to compare, and what does not fit the window has none.
  if (!looks_at_other_tokens(bench.recipe.model.moe).empty() || window < few + 2 * timed) return;
  const std::int64_t long_text = std::min(many, window - timed);
  const Model model(bench.recipe, Mesh::alone(), bench.device);
  Times anew, first, last, prompt, batch;
  for (std::int64_t repeat = -1; repeat < bench.repeats; ++repeat) {
    Growth without(bench, model, 1, few, Cache::off), with(bench, model, 1, few, Cache::on),
        after(bench, model, 1, long_text, Cache::on), several(bench, model, together, few, Cache::on);
    Times* const all[] = {&anew, &first, &last, &prompt, &batch};
    with.step();
    several.step();
    const auto tokens = static_cast<double>(timed - 1);
    prompt.measure(1, static_cast<double>(long_text), [&] { after.step(); });
    without.step();
    anew.measure(timed - 1, tokens, [&] { without.step(); });
    first.measure(timed - 1, tokens, [&] { with.step(); });
    last.measure(timed - 1, tokens, [&] { after.step(); });
    batch.measure(timed - 1, tokens * static_cast<double>(together), [&] { several.step(); });
    if (repeat < 0)
      for (Times* times : all) *times = {};  // memory is taken
  }
  const auto add = [&](const std::string& name, const Times& times, const std::string& limit,
                       const Times& limits) {
    const auto put = [&](const std::string& called, const std::vector<double>& values,
                         const std::vector<double>& held_against) {
      bench.figures.push_back({.subject = "generate",
                               .name = called,
                               .unit = "s",
                               .values = values,
                               .limit = limit,
                               .limits = limit.empty() ? std::vector<double>{} : held_against,
                               .better = Better::lower});
    };
    put(name, times.wall, limits.wall);
    put(name + ", of processors", times.processor, limits.processor);
  };
  const std::string short_name = join_text("a token after ", few);
  add(short_name, first, "one without the cache", anew);
  add(join_text("a token after ", long_text), last, join_text("one after ", few), first);
  add(join_text("a token of ", together, " texts together, after ", few), batch, "one of one text", first);
  add(join_text("a token of a prompt of ", long_text), prompt, "", {});
}

}  // namespace conclave
