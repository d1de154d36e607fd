// A toy that stands for any router with scores and parameters of its own: the score of an expert is linear in
// a few numbers that are linear in the token. Parameters: NAME.down [few, hidden], NAME.up [experts, few].
#include "layers/linear.h"
#include "layers/moe/methods.h"
#include "layers/parallelism.h"

namespace conclave {
namespace {

constexpr std::int64_t few = 4;

class BottleneckScores final : public Scores {
 public:
  BottleneckScores(ParameterSet& parameters, const std::string& name, const ModelRecipe& model)
      : down_(parameters, name + ".down", model.hidden_size, few, model.initializer_range,
              Parallelism::per_rank(), Precision::full),
        up_(parameters, name + ".up", few, model.moe.num_experts, 1.0, Parallelism::per_rank(),
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
    if (model.moe.router.kind != "bottleneck") return nullptr;
    return std::make_unique<BottleneckScores>(parameters, name, model);
  }};
}

}  // namespace conclave
