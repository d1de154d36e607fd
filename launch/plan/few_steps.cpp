#include "launch/plan/few_steps.h"

#include <algorithm>
#include <numeric>

#include "framework/base/error.h"
#include "launch/plan/exchange_rounds.h"
#include "layers/moe/methods.h"

namespace conclave {
namespace {

double real(std::int64_t number) {
  return static_cast<double>(number);
}

/// How much of a model a run has.
struct Extent {
  std::int64_t micro_steps, dense_layers, moe_layers;
};

Extent extent_of(const Recipe& recipe, int ranks) {
  const std::int64_t data = ranks / recipe.parallel.tensor, moe = count_moe_layers(recipe.model);
  return {recipe.training.global_batch_size / (recipe.training.micro_batch_size * data),
          recipe.model.num_hidden_layers - moe, moe};
}

Recipe of_extent(Recipe recipe, int ranks, const Extent& extent) {
  const Extent whole = extent_of(recipe, ranks);
  if (extent.dense_layers != whole.dense_layers || extent.moe_layers != whole.moe_layers) {
    recipe.model.moe.first_k_dense_replace = extent.dense_layers;  // they cost the same wherever they stand
    recipe.model.moe.dense_layers.clear();
    recipe.model.num_hidden_layers = extent.dense_layers + extent.moe_layers;
    recipe.optimizer.groups.clear();  // their patterns may name blocks that are not there
  }
  recipe.training.global_batch_size =
      recipe.training.global_batch_size / whole.micro_steps * extent.micro_steps;
  return recipe;
}

/// Micro-steps after which groups of sequences that reach beyond one begin again at the start of one.
std::int64_t period_of(const Recipe& recipe, int ranks) {
  const std::int64_t together = recipe.training.micro_batch_size * (ranks / recipe.parallel.tensor);
  return period_of_methods(recipe.model.moe, together);
}

/// Collectives that differ in their bytes alone.
struct KindOfCollective {
  Purpose purpose;
  std::string_view operation;
  bool started;
  Members members;
  auto operator<=>(const KindOfCollective&) const = default;
};
KindOfCollective kind_of(const Collective& one) {
  return {one.purpose, one.operation, one.started, one.members};
}

using Collectives = std::map<Collective, double>;
std::map<KindOfCollective, Collectives> by_kind(const Collectives& all) {
  std::map<KindOfCollective, Collectives> kinds;
  for (const auto& [collective, calls] : all) kinds[kind_of(collective)][collective] = calls;
  return kinds;
}

bool have_equal_keys(const Collectives& a, const Collectives& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& one, const auto& other) { return one.first == other.first; });
}

/// All of a kind as one, each with the mean bytes.
Collectives averaged(const Collectives& all, double& bytes) {
  Collectives result;
  if (all.empty()) return result;
  double calls = 0;
  bytes = 0;
  for (const auto& [collective, count] : all) {
    calls += count;
    bytes += count * real(collective.bytes);
  }
  Collective mean = all.begin()->first;
  mean.bytes = 0;
  result[mean] = calls;
  return result;
}

/// x + times * (b - a), kind by kind. Where a further block changes how many bytes a collective has (counts
/// of all layers, buckets of gradients), those of its kind become equally large.
Collectives continued(const Collectives& x, const Collectives& a, const Collectives& b, double times) {
  auto kinds = by_kind(x), of_a = by_kind(a), of_b = by_kind(b);
  for (const auto& [kind, collectives] : of_b) kinds[kind];
  Collectives result;
  for (auto& [kind, of_x] : kinds) {
    Collectives &from = of_a[kind], &to = of_b[kind];
    if (have_equal_keys(of_x, from) && have_equal_keys(of_x, to)) {
      for (const auto& [collective, calls] : of_x)
        result[collective] = calls + times * (to[collective] - from[collective]);
      continue;
    }
    double bytes_x = 0, bytes_a = 0, bytes_b = 0, calls_a = 0, calls_b = 0, calls_x = 0;
    for (const auto& [collective, calls] : averaged(of_x, bytes_x)) calls_x = calls;
    for (const auto& [collective, calls] : averaged(from, bytes_a)) calls_a = calls;
    for (const auto& [collective, calls] : averaged(to, bytes_b)) calls_b = calls;
    const double calls = calls_x + times * (calls_b - calls_a), bytes = bytes_x + times * (bytes_b - bytes_a);
    if (calls <= 0) continue;
    result[{kind.purpose, kind.operation, kind.started, static_cast<std::int64_t>(bytes / calls),
            kind.members}] += calls;
  }
  return result;
}

/// x + times * (b - a)
DryStep continued(const DryStep& x, const DryStep& a, const DryStep& b, double times) {
  DryStep result = x;
  for (const auto number : {&DryStep::parameters, &DryStep::rounded_parameters, &DryStep::gradients,
                            &DryStep::reduced_gradients, &DryStep::moments, &DryStep::tables,
                            &DryStep::router_states, &DryStep::states, &DryStep::peak, &DryStep::snapshot})
    result.*number += times * (b.*number - a.*number);
  for (std::size_t i = 0; i < result.traffic.size(); ++i)
    result.traffic[i] += times * (b.traffic[i] - a.traffic[i]);
  result.collectives = continued(x.collectives, a.collectives, b.collectives, times);
  const auto add_work = [&](const DryStep& step, double factor) {
    for (const auto& [place, work] : step.work) {
      AmountOfWork& sum = result.work[place];
      sum.calls += factor * work.calls;
      sum.bytes += factor * work.bytes;
      sum.operations += factor * work.operations;
      sum.exponentials += factor * work.exponentials;
    }
  };
  add_work(b, times);
  add_work(a, -times);
  return result;
}

/// Tokens that a rank sends to experts in a block, counted with each of their experts.
double slots_of(const Recipe& recipe) {
  return real(recipe.training.micro_batch_size) * real(recipe.data.sequence_length) /
         real(recipe.parallel.tensor) * real(recipe.model.moe.num_experts_per_tok);
}

/// Parameters of one block on one rank, at most and about; of the embedding and the LM head.
double elements_of_block(const Recipe& recipe) {
  const ModelRecipe& m = recipe.model;
  const ParallelRecipe& p = recipe.parallel;
  const double experts = real(m.moe.num_experts) / real(p.expert * p.expert_tensor);
  const double columns = 4 * real(m.num_attention_heads) * real(m.head_dim) + 3 * real(m.intermediate_size);
  return real(m.hidden_size) * (columns / real(p.tensor) + 3 * real(m.moe.moe_intermediate_size) *
                                                               (experts + real(m.moe.num_shared_experts)));
}
double elements_of_ends(const Recipe& recipe) {
  return 2 * real(recipe.model.vocab_size) * real(recipe.model.hidden_size) / real(recipe.parallel.tensor);
}

/// Micro-steps of the shortest run from which the line goes on.
std::int64_t fewest_micro_steps(const Recipe& recipe, int ranks) {
  return std::max<std::int64_t>(2, period_of(recipe, ranks));
}

/// Sizes that are quick to run; larger ones are continued in a line.
Extent few_of(const Extent& whole, const Recipe& recipe, int ranks) {
  Extent few = whole;
  const std::int64_t fewest = fewest_micro_steps(recipe, ranks);
  if (whole.micro_steps > fewest + period_of(recipe, ranks)) few.micro_steps = fewest;
  // Seconds, about: of the kernels and choices of a micro-batch, and of the tables of an optimizer's pieces.
  const double of_micro_step = 2e-4 + slots_of(recipe) * 6e-8, of_tables = elements_of_block(recipe) * 1e-11;
  const double of_layer = of_micro_step * real(few.micro_steps) + of_tables, budget = 0.05;
  const auto most = std::clamp<std::int64_t>(static_cast<std::int64_t>(budget / of_layer), 4, 100);
  if (whole.dense_layers + whole.moe_layers <= most) return few;
  few.dense_layers = std::min(whole.dense_layers, std::max<std::int64_t>(most / 4, 2));
  few.moe_layers = std::min(whole.moe_layers, std::max<std::int64_t>(most / 2, 2));
  return few;
}

}  // namespace

void check_can_be_planned(const Recipe& recipe, int ranks) {
  constexpr std::int64_t most_layers = 15'000, most_micro_steps = 4096;
  constexpr double most_slots = 1 << 22, most_counts = 1 << 20, most_elements = 0x1p37;
  check(recipe.model.num_hidden_layers <= most_layers, Fault::request,
        "model.num_hidden_layers: ", recipe.model.num_hidden_layers,
        " blocks came, which cannot be planned. Expected at most ", most_layers, ".");
  const double tokens = real(recipe.training.micro_batch_size) * real(recipe.data.sequence_length);
  check(std::max(slots_of(recipe), tokens) <= most_slots, Fault::request,
        "training.micro_batch_size: ", recipe.training.micro_batch_size, " sequences of ",
        recipe.data.sequence_length, " tokens came, each of which goes to ",
        recipe.model.moe.num_experts_per_tok,
        " experts, which cannot be planned. Expected a smaller micro-batch or data.sequence_length.");
  const double elements = elements_of_ends(recipe) + 4 * elements_of_block(recipe);
  check(
      elements <= most_elements, Fault::request, "A rank would hold ", elements,
      " parameters of four blocks, the embedding and the LM head, which cannot be planned. Expected a "
      "smaller "
      "model.vocab_size, hidden_size, num_experts or moe_intermediate_size, or more ranks that share them.");
  const ModelRecipe& m = recipe.model;
  check(real(m.moe.num_experts) * real(recipe.training.micro_batch_size) <= most_counts, Fault::request,
        "model.moe.num_experts: ", m.moe.num_experts, " experts and ", recipe.training.micro_batch_size,
        " sequences came, which cannot be planned. Expected fewer of either.");
  const Extent whole = extent_of(recipe, ranks);
  check(std::min(whole.micro_steps, 2 * fewest_micro_steps(recipe, ranks)) <= most_micro_steps,
        Fault::request, "model.moe.balance: groups of sequences came that begin anew after ",
        period_of(recipe, ranks), " of a step's ", whole.micro_steps,
        " micro-steps, which cannot be planned. Expected a balance_batch_size that spans fewer.");
}

DryStep dry_step_of_few(const Recipe& recipe, int ranks, const ExpertChoice& choice) {
  check_can_be_planned(recipe, ranks);
  const Extent whole = extent_of(recipe, ranks), few = few_of(whole, recipe, ranks);
  const auto run = [&](const Extent& extent) {
    std::shared_ptr<OtherRanks> others;
    if (recipe.parallel.dispatch_rows > 0)
      others = std::make_shared<ExchangeRounds>(recipe.parallel.dispatch_rows);
    return dry_step(of_extent(recipe, ranks, extent), counting_communicator(0, ranks, others), choice);
  };
  /// The step of `extent`, in as many micro-batches as the whole step has.
  const auto run_whole_steps = [&](Extent extent) {
    const DryStep first = run(extent);
    if (whole.micro_steps == few.micro_steps) return first;
    const std::int64_t period = period_of(recipe, ranks);
    extent.micro_steps += period;
    const DryStep second = run(extent);
    return continued(first, first, second, real(whole.micro_steps - few.micro_steps) / real(period));
  };
  DryStep result = run_whole_steps(few);
  const DryStep base = result;
  for (const auto layers : {&Extent::dense_layers, &Extent::moe_layers}) {
    if (whole.*layers == few.*layers) continue;
    Extent more = few;
    more.*layers += 1;
    result = continued(result, base, run_whole_steps(more), real(whole.*layers - few.*layers));
  }
  return result;
}

}  // namespace conclave
