#include "launch/train/evaluator.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/recipe/nearest.h"
#include "layers/moe/router_measures.h"
#include "layers/moe/router_readings.h"

namespace conclave {
namespace {

/// Rows that no rank has left: all padding, so that every rank runs the same number of forward passes.
void pad(Batch& batch, std::int64_t sequences) {
  const std::size_t tokens = static_cast<std::size_t>(sequences * batch.length);
  const std::size_t first = batch.tokens.size();
  batch.tokens.resize(tokens, -1);
  batch.targets.resize(tokens, -1);
  batch.document_start.resize(tokens);
  for (std::size_t i = first; i < tokens; ++i)
    batch.document_start[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) % batch.length);
  batch.domain.resize(static_cast<std::size_t>(sequences));
  batch.sequences = sequences;
}

/// The sums of one domain over micro-batches and ranks.
struct Sums {
  Sums(std::int64_t layers, std::int64_t experts)
      : counts(static_cast<std::size_t>(layers * experts)),
        probabilities(counts.size()),
        chosen_probability(static_cast<std::size_t>(layers)),
        entropy(static_cast<std::size_t>(layers)) {}

  void add(const std::vector<RouterStatistics>& layers) {
    const std::vector<RouterReading> readings = read_routers(layers, ReadChosen::no);
    const std::vector<RouterMeasures> measures = measure_routers(layers);
    for (std::size_t layer = 0; layer < readings.size(); ++layer) {
      const RouterReading& reading = readings[layer];
      const auto experts = static_cast<std::size_t>(reading.experts);
      for (std::size_t i = 0; i < reading.counts.size(); ++i) {
        counts[layer * experts + i % experts] += reading.counts[i];
        probabilities[layer * experts + i % experts] += reading.probability_sums[i];
      }
      chosen_probability[layer] += measures[layer].chosen_probability;
      entropy[layer] += measures[layer].entropy;
    }
  }

  std::int64_t targets = 0, tokens = 0;
  std::vector<std::int64_t> counts;  // [layers, experts]
  double loss = 0;
  std::vector<double> probabilities;                // [layers, experts]
  std::vector<double> chosen_probability, entropy;  // [layers]
};

/// Adds up what the ranks saw, all domains together. Collective.
void join(std::vector<Sums>& domains, Communicator& world) {
  std::vector<std::int64_t> integers;
  std::vector<double> reals;
  const auto each = [&domains](auto&& visit_integers, auto&& visit_reals) {
    for (Sums& sums : domains) {
      visit_integers(&sums.targets, 1);
      visit_integers(&sums.tokens, 1);
      visit_integers(sums.counts.data(), sums.counts.size());
      visit_reals(&sums.loss, 1);
      visit_reals(sums.probabilities.data(), sums.probabilities.size());
      visit_reals(sums.chosen_probability.data(), sums.chosen_probability.size());
      visit_reals(sums.entropy.data(), sums.entropy.size());
    }
  };
  const auto put_into = [](auto& all) {
    return [&all](const auto* values, std::size_t count) { all.insert(all.end(), values, values + count); };
  };
  each(put_into(integers), put_into(reals));
  const Tensor all_integers = Tensor::from(integers, {static_cast<std::int64_t>(integers.size())});
  const Tensor all_reals = Tensor::from(reals, {static_cast<std::int64_t>(reals.size())});
  world.all_reduce(all_integers, ReduceOp::sum, Purpose::statistics);
  world.all_reduce(all_reals, ReduceOp::sum, Purpose::statistics);
  integers = all_integers.to_host<std::int64_t>();
  reals = all_reals.to_host<double>();
  const auto take_from = [](const auto& all) {
    return [next = all.begin()](auto* values, std::size_t count) mutable {
      std::copy_n(next, count, values);
      next += static_cast<std::ptrdiff_t>(count);
    };
  };
  each(take_from(integers), take_from(reals));
}

DomainResult result_of(const std::string& domain, const Sums& sums) {
  const auto tokens = static_cast<double>(std::max<std::int64_t>(sums.tokens, 1));
  const auto over_tokens = [tokens](std::vector<double> values) {
    for (double& value : values) value /= tokens;
    return values;
  };
  return {.domain = domain,
          .target_tokens = sums.targets,
          .lm_loss = sums.targets > 0 ? sums.loss / static_cast<double>(sums.targets)
                                      : std::numeric_limits<double>::quiet_NaN(),
          .expert_counts = sums.counts,
          .tokens = sums.tokens,
          .mean_probability = over_tokens(sums.probabilities),
          .score_sum = over_tokens(sums.chosen_probability),
          .entropy = over_tokens(sums.entropy)};
}

}  // namespace

std::vector<DomainResult> evaluate(const Transformer& transformer, const ValidationData& validation,
                                   const EvaluationOptions& options, const Mesh& mesh) {
  return *evaluate_unless({}, transformer, validation, options, mesh);
}

std::optional<std::vector<DomainResult>> evaluate_unless(const std::function<bool()>& stop,
                                                         const Transformer& transformer,
                                                         const ValidationData& validation,
                                                         const EvaluationOptions& options, const Mesh& mesh) {
  const Communicator& data = mesh.axis(Axis::data);
  const bool first_tensor_rank = mesh.axis(Axis::tensor).rank() == 0;  // the others hold the same losses
  const std::int64_t micro = options.micro_batch_size;
  const std::vector<std::string> names = validation.domains();
  std::vector<Sums> domains(names.size(), Sums(transformer.routers(), options.experts));
  std::vector<std::int64_t> taken(names.size());  // sequences; a domain may have several files
  for (std::int64_t dataset = 0; dataset < validation.datasets(); ++dataset) {
    const auto domain = static_cast<std::size_t>(
        std::find(names.begin(), names.end(), validation.domain_name(dataset)) - names.begin());
    std::int64_t sequences = validation.sequences(dataset);
    if (options.most_sequences > 0) sequences = std::min(sequences, options.most_sequences - taken[domain]);
    taken[domain] += sequences;
    Sums& sums = domains[domain];
    for (std::int64_t round = 0; round < sequences; round += micro * data.size()) {
      mesh.world().note_progress();
      if (stop && stop()) return std::nullopt;
      const std::int64_t first = std::min(round + data.rank() * micro, sequences);
      const std::int64_t count = std::min(micro, sequences - first);
      Batch batch;
      if (count > 0) batch = validation.batch(dataset, first, count);
      if (count == 0) batch.length = validation.length();
      pad(batch, micro);
      ModelInput input = to_device(batch, transformer.device());
      input.keep_probabilities = true;
      Tape tape(Tape::Mode::forward_only);
      const Transformer::Result result = transformer.forward(tape, input);
      const double token_losses = transformer.loss(tape, result.hidden, input, {}).loss_sum();
      if (first_tensor_rank) {
        sums.loss += token_losses;
        sums.targets += batch.target_tokens();
        sums.tokens += batch.real_tokens();
      }
      sums.add(result.statistics);  // routers see each token on one tensor rank only
    }
  }
  std::vector<DomainResult> results;
  if (domains.empty()) return results;
  join(domains, mesh.world());
  for (std::size_t i = 0; i < domains.size(); ++i) results.push_back(result_of(names[i], domains[i]));
  return results;
}

double mean_over_domains(const std::vector<DomainResult>& results) {
  double sum = 0;
  std::int64_t counted = 0;
  for (const DomainResult& result : results) {
    if (result.target_tokens == 0) continue;
    sum += result.lm_loss;
    ++counted;
  }
  return counted > 0 ? sum / static_cast<double>(counted) : std::numeric_limits<double>::quiet_NaN();
}

std::string domains_not_finite(const std::vector<DomainResult>& results) {
  std::vector<std::string> names;
  for (const DomainResult& result : results)
    if (result.target_tokens > 0 && !std::isfinite(result.lm_loss)) names.push_back(result.domain);
  if (names.empty()) return "";
  return join_text("The loss of ", join_words(names),
                   " is not finite (NaN or infinity), so the model gives no probabilities there.");
}

std::string domains_without_targets(const std::vector<DomainResult>& results) {
  std::vector<std::string> names;
  for (const DomainResult& result : results)
    if (result.target_tokens == 0) names.push_back(result.domain);
  if (names.empty()) return "";
  return join_text("The mean leaves out ", join_words(names),
                   names.size() == 1 ? ", whose text holds no target" : ", whose texts hold no target",
                   ": a token that another one of its document predicts.");
}

}  // namespace conclave
