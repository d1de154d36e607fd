// RoundRobinRouter: a router that is asked and then overruled. Its weights and statistics stay, but token t
// goes to experts t * top_k, t * top_k + 1, ... counted round. Every expert gets as many rows, so it shows
// the cost of training without any imbalance. It is for measuring, not for training.
#pragma once

#include "layers/moe/router.h"

namespace conclave {

class RoundRobinRouter final : public Router {
 public:
  RoundRobinRouter(std::unique_ptr<Router> asked, std::int64_t experts)
      : asked_(std::move(asked)), experts_(experts) {}

  Routing route(Tape& tape, const RouterInput& input) const override {
    Routing routing = asked_->route(tape, input);
    std::vector<std::int32_t> chosen = routing.experts.to_host<std::int32_t>();
    for (std::size_t i = 0; i < chosen.size(); ++i)
      if (chosen[i] >= 0) chosen[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) % experts_);
    routing.experts = Tensor::from(chosen, routing.experts.shape(), routing.experts.device());
    return routing;
  }

 private:
  std::unique_ptr<Router> asked_;
  std::int64_t experts_;
};

}  // namespace conclave
