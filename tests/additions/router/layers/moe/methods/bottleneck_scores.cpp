// A toy that stands for any router with scores and parameters of its own: the score of an expert is linear in
// a few numbers that are linear in the token. Parameters: NAME.down [width, hidden], NAME.up [experts,
// width].
#include "framework/recipe/visitor.h"
#include "layers/linear.h"
#include "layers/moe/methods.h"
#include "layers/parallelism.h"

namespace conclave {

/// The section model.moe.bottleneck.
struct BottleneckRecipe {
  std::int64_t width = 0;  // 0: linear scores
  bool operator==(const BottleneckRecipe&) const = default;
};
void describe(Visitor& v, BottleneckRecipe& b) {
  v.key({"width", &b.width, "numbers of a token that the scores are made of; 0: all", size_or_zero()});
}
std::unique_ptr<MethodKeys> bottleneck_keys() {
  return std::make_unique<KeysOf<BottleneckRecipe>>();
}

namespace {

class BottleneckScores final : public Scores {
 public:
  BottleneckScores(ParameterSet& parameters, const std::string& name, const ModelRecipe& model,
                   std::int64_t width)
      : down_(parameters, name + ".down", model.hidden_size, width, model.initializer_range,
              Parallelism::per_rank(), Precision::full),
        up_(parameters, name + ".up", width, model.moe.num_experts, 1.0, Parallelism::per_rank(),
            Precision::full) {}
  Variable of(Tape& tape, const RouterInput& input) const override {
    return up_.forward(tape, down_.forward(tape, input.x));
  }

 private:
  Linear down_, up_;
};

}  // namespace

Method bottleneck_scores() {
  return {.scores = [](ParameterSet& parameters, const std::string& name,
                       const ModelRecipe& model) -> std::unique_ptr<Scores> {
    const std::int64_t width = model.moe.methods.of<BottleneckRecipe>().width;
    if (width == 0) return nullptr;
    return std::make_unique<BottleneckScores>(parameters, name, model, width);
  }};
}

}  // namespace conclave
