#include "layers/moe/methods/vocabulary_mask.h"

#include <algorithm>
#include <numeric>

#include "framework/base/random.h"
#include "framework/kernels/token_masks.h"
#include "layers/moe/methods.h"

namespace conclave {
namespace {

/// float64 [vocabulary]: 1 for a frequent id.
constexpr const char* frequent_tokens_name = "state/frequent_tokens";

class VocabularyMask final : public Mask {
 public:
  VocabularyMask(const VocabularyMaskRecipe& recipe, const std::string& name, const Tensor& frequent)
      : recipe_(recipe), name_(name), frequent_(frequent) {}

  void close(const RouterInput& input, const Tensor& logits) const override {
    if (!sets_.defined()) sets_ = draw_sets(frequent_.dim(0), logits.dim(1), logits.device());
    kernels_of(logits).family<TokenMaskKernels>().close_by_token(input.input.tokens, sets_, frequent_,
                                                                 logits);
  }

 private:
  /// int32 [vocabulary, 2, words]: the first expert that is drawn for an id, and all that are.
  Tensor draw_sets(std::int64_t vocabulary, std::int64_t experts, Device& device) const {
    const std::int64_t words = words_of_experts(experts);
    std::vector<std::int32_t> sets(static_cast<std::size_t>(vocabulary * 2 * words));
    const RandomKey key = RandomKey(recipe_.seed).with("vocabulary_mask").with(name_);
    std::vector<std::size_t> order(static_cast<std::size_t>(experts)),
        swapped(static_cast<std::size_t>(recipe_.visible));
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::int64_t id = 0; id < vocabulary; ++id) {
      const RandomKey of_id = key.with(static_cast<std::uint64_t>(id));
      for (std::size_t i = 0; i < swapped.size(); ++i) {
        swapped[i] = i + of_id.below(i, order.size() - i);
        std::swap(order[i], order[swapped[i]]);
        const auto expert = static_cast<std::int64_t>(order[i]);
        const auto bit = static_cast<std::int32_t>(1u << (expert % experts_of_word));
        const std::int64_t word = 2 * id * words + expert / experts_of_word;
        if (i == 0) sets[static_cast<std::size_t>(word)] |= bit;
        sets[static_cast<std::size_t>(word + words)] |= bit;
      }
      for (std::size_t i = swapped.size(); i-- > 0;) std::swap(order[i], order[swapped[i]]);
    }
    return Tensor::from(sets, {vocabulary, 2, words}, device);
  }

  VocabularyMaskRecipe recipe_;
  std::string name_;
  Tensor frequent_;      // the model's
  mutable Tensor sets_;  // of the layer, drawn at its first use
};

/// The fewest ids, of equally frequent ones the lower, that make up the share of the text.
void mark_frequent_ids(double share, const std::vector<std::int64_t>& count_of_id, const Tensor& state) {
  check(static_cast<std::int64_t>(count_of_id.size()) == state.elements(),
        "VocabularyMask: ", count_of_id.size(), " counts came for a vocabulary of ", state.elements());
  std::vector<std::size_t> order(count_of_id.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return count_of_id[a] > count_of_id[b]; });
  const double wanted =
      share * static_cast<double>(std::accumulate(count_of_id.begin(), count_of_id.end(), std::int64_t{0}));
  std::vector<double> frequent(count_of_id.size());
  std::int64_t covered = 0;
  for (const std::size_t id : order) {
    if (static_cast<double>(covered) >= wanted || count_of_id[id] == 0) break;
    frequent[id] = 1;
    covered += count_of_id[id];
  }
  state.copy_from(Tensor::from(frequent, state.shape()));
}

}  // namespace

Method vocabulary_mask() {
  return {.mask = [](const MoeRecipe& moe, const std::string& name,
                     const MethodStates& states) -> std::unique_ptr<Mask> {
            if (moe.router.vocabulary.visible == 0) return nullptr;
            const Tensor frequent = states.of(frequent_tokens_name);
            check(frequent.defined(), "VocabularyMask: no ", frequent_tokens_name,
                  " came; expected the states of the model's routers");
            return std::make_unique<VocabularyMask>(moe.router.vocabulary, name, frequent);
          },
          .state = frequent_tokens_name,
          .keeps_state = [](const MoeRecipe& moe) { return moe.router.vocabulary.visible > 0; },
          .shape_of_state = [](const ModelRecipe& model) { return Shape{model.vocab_size}; },
          .learn_from_text =
              [](const MoeRecipe& moe, const std::vector<std::int64_t>& count_of_id, const Tensor& state) {
                mark_frequent_ids(moe.router.vocabulary.frequent_share, count_of_id, state);
              },
          .state_is_lost =
              [](const std::string& checkpoint) {
                return "model.moe.router.vocabulary.visible: 0 came, but the tokens of " + checkpoint +
                       " have experts by their ids, which would be lost. Leave the key as it was.";
              }};
}

}  // namespace conclave
