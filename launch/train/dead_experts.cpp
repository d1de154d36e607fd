#include "launch/train/dead_experts.h"

#include "framework/base/error.h"
#include "framework/base/text.h"

namespace conclave {

std::vector<std::string> DeadExperts::add(const std::vector<std::int64_t>& counts) {
  std::vector<std::string> sentences;
  if (limit_ == 0) return sentences;
  idle_steps_.resize(counts.size());
  for (std::size_t i = 0; i < idle_steps_.size(); ++i) {
    idle_steps_[i] = counts[i] > 0 ? 0 : idle_steps_[i] + 1;
    if (idle_steps_[i] == limit_)
      sentences.push_back(join_text("Expert ", static_cast<std::int64_t>(i) % experts_, " of block ",
                                    first_block_ + static_cast<std::int64_t>(i) / experts_,
                                    " has had no token for ", counted(limit_, "step"), "."));
  }
  return sentences;
}

}  // namespace conclave
