#include "launch/train/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace conclave {

std::int32_t sample(const std::vector<double>& logits, std::int64_t vocabulary,
                    const SamplingOptions& options, const RandomKey& key, std::uint64_t index) {
  const std::size_t usable = std::min(logits.size(), static_cast<std::size_t>(vocabulary));
  // The first of the largest, as the sorted order has it.
  if (options.temperature <= 0)
    return static_cast<std::int32_t>(
        std::max_element(logits.begin(), logits.begin() + static_cast<std::ptrdiff_t>(usable)) -
        logits.begin());
  std::vector<std::int32_t> order(usable);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  if (options.top_k > 0) order.resize(std::min(usable, static_cast<std::size_t>(options.top_k)));
  const double largest = logits[static_cast<std::size_t>(order[0])];
  double total = 0;
  std::vector<double> weights;
  for (const std::int32_t token : order) {
    weights.push_back(std::exp((logits[static_cast<std::size_t>(token)] - largest) / options.temperature));
    total += weights.back();
  }
  double left = key.uniform(index) * total;
  for (std::size_t i = 0; i < order.size(); ++i) {
    left -= weights[i];
    if (left <= 0) return order[i];
  }
  return order.back();
}

std::vector<double> next_token_logits(const Transformer& transformer, std::span<const std::int32_t> context,
                                      std::int64_t window) {
  const std::size_t length = std::min(context.size(), static_cast<std::size_t>(window));
  const std::span<const std::int32_t> seen = context.last(length);
  Batch batch;
  batch.sequences = 1;
  batch.length = static_cast<std::int64_t>(length);
  batch.tokens.assign(seen.begin(), seen.end());
  batch.targets.assign(length, -1);
  batch.document_start.assign(length, 0);
  Tape tape(Tape::Mode::forward_only);
  const Tensor hidden = transformer.forward(tape, to_device(batch, transformer.device())).hidden.value;
  return rows_to_host(transformer.logits(hidden.slice(batch.length - 1, batch.length)))[0];
}

std::vector<std::vector<double>> rows_to_host(const Tensor& logits) {
  std::vector<std::vector<double>> rows;
  with_float_type(logits.dtype(), [&](auto zero) {
    const auto values = logits.to_host<decltype(zero)>();
    for (auto row = values.begin(); row != values.end(); row += logits.dim(1))
      rows.emplace_back(row, row + logits.dim(1));
  });
  return rows;
}

}  // namespace conclave
