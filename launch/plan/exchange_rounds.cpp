#include "launch/plan/exchange_rounds.h"

#include <algorithm>
#include <numeric>

#include "parallel/mesh.h"

namespace conclave {
namespace {

bool is_expert_group(const Communicator& ranks) {
  return ranks.name() == name_of(Axis::expert_group);
}

}  // namespace

void ExchangeRounds::before_gather(const Communicator& ranks, const Tensor& in) {
  if (!is_expert_group(ranks) || in.dtype() != DType::int64 || in.shape() != Shape{1, ranks.size()}) return;
  const std::vector<std::int64_t> sends = in.to_host<std::int64_t>();
  // Every rank of the group sends as much.
  const std::int64_t most = ranks.size() * *std::max_element(sends.begin(), sends.end());
  rounds_ = std::max<std::int64_t>(1, (most + most_rows_ - 1) / most_rows_);
  round_ = 0;
  from_others_ = left_ = (ranks.size() - 1) * sends[static_cast<std::size_t>(ranks.rank())];
}

bool ExchangeRounds::answer_exchange(const Communicator& ranks, const Tensor& in, const Tensor& out) {
  if (rounds_ == 1 || !is_expert_group(ranks) || in.dtype() != DType::int64 || in.shape().dims() != 2)
    return false;
  const std::int64_t experts = in.dim(1), others = ranks.size() - 1;
  const Tensor own = in.slice(ranks.rank(), ranks.rank() + 1);
  const std::vector<std::int64_t> kept = own.to_host<std::int64_t>();
  const std::int64_t here = std::accumulate(kept.begin(), kept.end(), std::int64_t{0});
  const std::int64_t coming = std::clamp<std::int64_t>(most_rows_ - here, 0, left_);
  left_ -= coming;
  if (++round_ == rounds_) {
    round_ = 0;
    left_ = from_others_;
  }
  // Spread over senders and experts.
  auto* counts = out.data<std::int64_t>();
  std::int64_t place = 0;
  for (std::int64_t sender = 0; sender < ranks.size(); ++sender)
    for (std::int64_t expert = 0; expert < experts; ++expert) {
      std::int64_t& count = counts[sender * experts + expert];
      if (sender == ranks.rank())
        count = kept[static_cast<std::size_t>(expert)];
      else
        count = coming / (others * experts) + (place++ < coming % (others * experts) ? 1 : 0);
    }
  return true;
}

}  // namespace conclave
