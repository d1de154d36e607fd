#include "layers/token_sets.h"

namespace conclave {
namespace {

std::int64_t sequences_of_micro_step(const BatchPlace& place) {
  return place.replicas * place.micro_batch_size;
}

bool lie_within_micro_steps(const BatchPlace& place, std::int64_t group_size) {
  return place.micro_steps == 1 || sequences_of_micro_step(place) % group_size == 0;
}

std::int64_t sets_of_groups(const BatchPlace& place, std::int64_t group_size) {
  const std::int64_t sequences =
      sequences_of_micro_step(place) * (lie_within_micro_steps(place, group_size) ? 1 : place.micro_steps);
  return (sequences + group_size - 1) / group_size;
}

}  // namespace

SequenceGroups::SequenceGroups(const BatchPlace& place, std::int64_t group_size)
    : TokenSets(lie_within_micro_steps(place, group_size), sets_of_groups(place, group_size)),
      place_(place),
      group_size_(group_size) {}

std::int64_t SequenceGroups::set_of(std::int64_t m, std::int64_t b) const {
  const std::int64_t before = within_micro_step() ? 0 : m * place_.replicas;
  return ((before + place_.replica) * place_.micro_batch_size + b) / group_size_;
}

void SequenceGroups::count(std::int64_t m, const std::vector<RouterReading>& layers,
                           std::vector<std::int64_t>& counts) const {
  auto of_layer = counts.begin();
  for (const RouterReading& layer : layers) {
    const std::int64_t experts = layer.experts;
    for (std::int64_t b = 0; b < layer.sequences; ++b)
      for (std::int64_t expert = 0; expert < experts; ++expert)
        of_layer[set_of(m, b) * experts + expert] +=
            layer.counts[static_cast<std::size_t>(b * experts + expert)];
    of_layer += sets() * experts;
  }
}

TokenSamples::TokenSamples(const BatchPlace& place, const RandomKey& key)
    : TokenSets(place.micro_steps == 1, place.micro_steps * place.replicas),
      place_(place),
      drawn_(static_cast<std::size_t>(place.micro_steps)) {
  const std::int64_t size = place.micro_batch_size * place.sequence_length, step_size = size * sets();
  for (std::int64_t sample = 0; sample < sets(); ++sample) {
    const RandomKey order = key.with(static_cast<std::uint64_t>(sample));
    for (std::int64_t draw = 0; draw < size; ++draw) {
      const auto token = static_cast<std::int64_t>(
          order.permute(static_cast<std::uint64_t>(draw), static_cast<std::uint64_t>(step_size)));
      const std::int64_t micro_batch = token / size;  // m * replicas + replica
      if (micro_batch % place.replicas == place.replica)
        drawn_[static_cast<std::size_t>(micro_batch / place.replicas)].push_back({token % size, sample});
    }
  }
}

std::int64_t TokenSamples::set_of(std::int64_t m, std::int64_t) const {
  return m * place_.replicas + place_.replica;
}

void TokenSamples::count(std::int64_t m, const std::vector<RouterReading>& layers,
                         std::vector<std::int64_t>& counts) const {
  auto of_layer = counts.begin();
  for (const RouterReading& layer : layers) {
    const std::int64_t experts = layer.experts, top_k = layer.top_k;
    const std::int64_t first = layer.first_token, end = first + layer.tokens;
    for (const Drawn& drawn : drawn_[static_cast<std::size_t>(m)]) {
      if (drawn.token < first || drawn.token >= end) continue;
      for (std::int64_t k = 0; k < top_k; ++k) {
        const std::int32_t expert = layer.chosen[static_cast<std::size_t>((drawn.token - first) * top_k + k)];
        if (expert >= 0) ++of_layer[drawn.sample * experts + expert];
      }
    }
    of_layer += sets() * experts;
  }
}

}  // namespace conclave
