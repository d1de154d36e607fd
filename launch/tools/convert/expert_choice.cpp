#include "launch/tools/convert/expert_choice.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "framework/data/dataset.h"
#include "launch/train/model.h"
#include "layers/moe/router_readings.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

/// Chooses among some of the layer's experts as the router of a model that has those alone would. Statistics
/// are about these, in their order. For forward passes only.
class SubsetRouter final : public Router {
 public:
  SubsetRouter(ParameterSet& parameters, const std::string& name, const ModelRecipe& model,
               const MethodStates& states)
      : weight_(parameters.create(name + ".gate.weight", {model.moe.num_experts, model.hidden_size},
                                  {Initializer::Kind::normal, model.initializer_range}, Decay::yes,
                                  Parallelism::per_rank(), Precision::full)),
        model_(model),
        states_(states) {}

  void restrict_to(const std::vector<std::int32_t>& experts) {
    experts_ = experts;
    const auto count = static_cast<std::int64_t>(experts.size());
    rows_ = Tensor::empty({count, model_.hidden_size}, weight_.value.dtype(), weight_.value.device());
    restricted_ = states_.of_experts(experts);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t expert = experts[static_cast<std::size_t>(i)];
      rows_.slice(i, i + 1).copy_from(weight_.value.slice(expert, expert + 1));
    }
  }

  Routing route(Tape& tape, const RouterInput& seen) const override {
    const Variable& x = seen.x;
    const ModelInput& input = seen.input;
    const bool all = !rows_.defined();
    const Tensor rows = all ? weight_.value : rows_;
    const ModelRecipe model = all ? model_ : with_experts(model_, rows.dim(0));
    const Variable typed = to_type(tape, x, rows.dtype());
    const Tensor logits = Tensor::empty({x.value.dim(0), rows.dim(0)}, rows.dtype(), rows.device());
    kernels_of(rows).gemm(typed.value, Transpose::no, rows, Transpose::yes, logits, Write::overwrite);
    Routing routing = conclave::route(tape, tape.output(logits), input.tokens,
                                      route_options(input, model.moe.num_experts_per_tok,
                                                    route_rule(model.moe, all ? states_ : restricted_)));
    if (all) return routing;
    std::vector<std::int32_t> chosen = routing.experts.to_host<std::int32_t>();
    for (std::int32_t& expert : chosen)
      if (expert >= 0) expert = experts_[static_cast<std::size_t>(expert)];
    routing.experts = Tensor::from(chosen, routing.experts.shape(), routing.experts.device());
    return routing;
  }

 private:
  const Parameter& weight_;
  ModelRecipe model_;
  MethodStates states_;
  std::vector<std::int32_t> experts_;
  Tensor rows_;  // of experts_; undefined: all
  MethodStates restricted_;
};

/// The mean over the text's tokens of one layer's probabilities. Collective.
std::vector<double> mean_probabilities(const Transformer& transformer, std::size_t layer,
                                       std::int64_t experts, const std::vector<Batch>& text,
                                       Communicator& world) {
  std::vector<double> sums(static_cast<std::size_t>(experts) + 1);  // the last: tokens
  agree(world, [&] {
    for (const Batch& batch : text) {
      world.note_progress();
      Tape tape(Tape::Mode::forward_only);
      const Transformer::Result result = transformer.forward(tape, to_device(batch, transformer.device()));
      const RouterReading reading = read_routers({result.statistics.at(layer)}, ReadChosen::no).at(0);
      for (std::size_t i = 0; i < reading.probability_sums.size(); ++i)
        sums[i % static_cast<std::size_t>(experts)] += reading.probability_sums[i];
      sums.back() += static_cast<double>(batch.real_tokens());
    }
  });
  const Tensor all = Tensor::from(sums, {experts + 1});
  world.all_reduce(all, ReduceOp::sum, Purpose::statistics);
  sums = all.to_host<double>();
  const double tokens = sums.back();
  sums.pop_back();
  for (double& sum : sums) sum /= tokens;
  agree(world, [&] {
    check(
        std::all_of(sums.begin(), sums.end(), [](double sum) { return std::isfinite(sum); }), Fault::data,
        "the routers of this checkpoint give probabilities that are no numbers; was it saved after training "
        "had gone wrong?");
  });
  return sums;
}

std::vector<std::int32_t> best(const std::vector<double>& scores, std::int64_t count) {
  std::vector<std::int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

void append_row(Batch& batch, const Batch& row) {
  batch.length = row.length;
  batch.sequences += row.sequences;
  batch.tokens.insert(batch.tokens.end(), row.tokens.begin(), row.tokens.end());
  batch.targets.insert(batch.targets.end(), row.targets.begin(), row.targets.end());
  batch.document_start.insert(batch.document_start.end(), row.document_start.begin(),
                              row.document_start.end());
  batch.domain.insert(batch.domain.end(), row.domain.begin(), row.domain.end());
}

}  // namespace

ModelRecipe with_experts(const ModelRecipe& model, std::int64_t experts) {
  ModelRecipe smaller = model;
  MoeRecipe& moe = smaller.moe;
  // Rules of training end here: places of an expert, pools, of which the kept experts are one for all ...
  moe.capacity_factor = 0;
  moe.router.pool = {};
  if (experts < model.moe.num_experts) {
    moe.num_experts = experts;
    moe.num_experts_per_tok = std::min(moe.num_experts_per_tok, experts);
    // ... and groups, of which the kept experts would not be even parts.
    moe.router.n_group = moe.router.topk_group = 1;
    std::erase_if(moe.balance, [](const BalanceRecipe& term) { return term.expert_groups > 0; });
  }
  return smaller;
}

std::vector<Batch> text_of_domain(const std::vector<DatasetRecipe>& datasets, const Recipe& recipe,
                                  const std::string& domain, std::int64_t sequences, int rank, int ranks) {
  DataRecipe data = recipe.data;
  data.validation = datasets;  // which is read in order
  const ValidationData text(data, recipe.model.vocab_size);
  std::vector<std::pair<std::int64_t, std::int64_t>> all;  // dataset and sequence
  std::string names;
  std::vector<std::string> seen;
  for (std::int64_t dataset = 0; dataset < text.datasets(); ++dataset) {
    const std::string& name = text.domain_name(dataset);
    if (std::find(seen.begin(), seen.end(), name) == seen.end()) {
      seen.push_back(name);
      names += join_text(names.empty() ? "" : ", ", name);
    }
    if (name != domain) continue;
    for (std::int64_t sequence = 0; sequence < text.sequences(dataset); ++sequence)
      all.emplace_back(dataset, sequence);
  }
  check(!all.empty(), Fault::request, "--domain ", domain, " came; the recipe's text has ",
        names.empty() ? "no domain at all" : join_text("the domains ", names));
  const auto count = static_cast<std::int64_t>(all.size());
  const std::int64_t wanted = sequences > 0 ? std::min(sequences, count) : count,
                     micro = recipe.training.micro_batch_size;
  std::vector<Batch> batches;
  for (std::int64_t i = rank * micro; i < wanted; i += ranks * micro) {
    Batch& batch = batches.emplace_back();
    for (std::int64_t j = i; j < std::min(i + micro, wanted); ++j) {
      const auto [dataset, sequence] = all[static_cast<std::size_t>(j * count / wanted)];
      append_row(batch, text.batch(dataset, sequence, 1));
    }
  }
  return batches;
}

std::vector<LayerChoice> choose_experts(const CheckpointReader& checkpoint, const Recipe& recipe,
                                        std::int64_t experts, const std::vector<Batch>& text,
                                        Communicator& world, Device& device,
                                        const std::function<void(const std::string&)>& say) {
  Recipe measured = recipe;
  measured.model = with_experts(recipe.model, recipe.model.moe.num_experts);
  std::vector<SubsetRouter*> routers;  // of the model
  std::unique_ptr<Model> model;
  agree(world, [&] {
    model = std::make_unique<Model>(measured, Mesh::alone(), device,
                                    [&routers](ParameterSet& parameters, const std::string& name,
                                               const ModelRecipe& of_model, const MethodStates& states) {
                                      auto router =
                                          std::make_unique<SubsetRouter>(parameters, name, of_model, states);
                                      routers.push_back(router.get());
                                      return router;
                                    });
    load_model(checkpoint, *model);
  });
  std::vector<LayerChoice> choices;
  for (std::size_t layer = 0; layer < routers.size(); ++layer) {
    LayerChoice choice;
    choice.scores = mean_probabilities(model->transformer, layer, recipe.model.moe.num_experts, text, world);
    choice.experts = best(choice.scores, experts);
    if (experts < recipe.model.moe.num_experts) routers[layer]->restrict_to(choice.experts);
    double kept = 0;
    for (const std::int32_t expert : choice.experts) kept += choice.scores[static_cast<std::size_t>(expert)];
    say(join_text("block ", moe_blocks(recipe.model)[layer], ": the kept experts have ",
                  std::lround(1000 * kept) / 10.0, "% of the router's probability"));
    choices.push_back(std::move(choice));
  }
  return choices;
}

}  // namespace conclave
