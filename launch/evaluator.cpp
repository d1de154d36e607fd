#include "launch/evaluator.h"

#include <algorithm>

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

}  // namespace

std::vector<DomainResult> evaluate(const Transformer& transformer, const ValidationData& validation,
                                   const EvaluationOptions& options, const Mesh& mesh) {
  const Communicator& data = mesh.axis(Axis::data);
  const bool first_tensor_rank = mesh.axis(Axis::tensor).rank() == 0;  // the others hold the same losses
  const std::int64_t micro = options.micro_batch_size, layers = transformer.moe_layers();
  std::vector<DomainResult> results;
  std::vector<double> losses;
  std::vector<std::int64_t> counts;  // per domain: target tokens, then [layers, experts]
  for (std::int64_t dataset = 0; dataset < validation.datasets(); ++dataset) {
    std::int64_t sequences = validation.sequences(dataset);
    if (options.most_sequences > 0) sequences = std::min(sequences, options.most_sequences);
    double loss = 0;
    std::int64_t targets = 0;
    std::vector<std::int64_t> chosen(static_cast<std::size_t>(layers * options.experts));
    for (std::int64_t round = 0; round < sequences; round += micro * data.size()) {
      mesh.world().note_progress();
      const std::int64_t first = std::min(round + data.rank() * micro, sequences);
      const std::int64_t count = std::min(micro, sequences - first);
      Batch batch;
      if (count > 0) batch = validation.batch(dataset, first, count);
      if (count == 0) batch.length = validation.length();
      pad(batch, micro);
      const ModelInput input = to_device(batch, transformer.device());
      Tape tape(Tape::Mode::forward_only);
      const Transformer::Result result = transformer.forward(tape, input);
      const double token_losses = transformer.loss(tape, result.hidden, input, {}).loss_sum;
      if (first_tensor_rank) {
        loss += token_losses;
        targets += batch.target_tokens();
      }
      for (std::size_t layer = 0; layer < result.statistics.size(); ++layer) {
        const auto values = result.statistics[layer].counts.to_host<std::int64_t>();
        for (std::size_t i = 0; i < values.size(); ++i)
          chosen[layer * static_cast<std::size_t>(options.experts) +
                 i % static_cast<std::size_t>(options.experts)] += values[i];
      }
    }
    losses.push_back(loss);
    counts.push_back(targets);
    counts.insert(counts.end(), chosen.begin(), chosen.end());
  }
  if (losses.empty()) return results;

  const Tensor all_losses = Tensor::from(losses, {static_cast<std::int64_t>(losses.size())});
  const Tensor all_counts = Tensor::from(counts, {static_cast<std::int64_t>(counts.size())});
  mesh.world().all_reduce(all_losses, ReduceOp::sum, Purpose::statistics);
  mesh.world().all_reduce(all_counts, ReduceOp::sum, Purpose::statistics);
  losses = all_losses.to_host<double>();
  counts = all_counts.to_host<std::int64_t>();
  const std::size_t stride = counts.size() / losses.size();
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const auto begin = counts.begin() + static_cast<std::ptrdiff_t>(i * stride);
    results.push_back({.domain = validation.domain_name(static_cast<std::int64_t>(i)),
                       .target_tokens = *begin,
                       .lm_loss = losses[i] / static_cast<double>(std::max<std::int64_t>(*begin, 1)),
                       .expert_counts = {begin + 1, begin + static_cast<std::ptrdiff_t>(stride)}});
  }
  return results;
}

double mean_over_domains(const std::vector<DomainResult>& results) {
  double sum = 0;
  for (const DomainResult& result : results) sum += result.lm_loss;
  return results.empty() ? 0 : sum / static_cast<double>(results.size());
}

}  // namespace conclave
