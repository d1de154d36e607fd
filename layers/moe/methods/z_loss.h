// The router z-loss (ST-MoE: Zoph et al., arXiv 2202.08906): the mean over tokens of the squared logsumexp of
// a router's logits, which keeps them small.
#pragma once

#include "framework/recipe/requirements.h"

namespace conclave {

/// The key of model.moe.router.
inline void describe_z_loss(Visitor& v, double& coefficient) {
  v.key({"z_loss_coefficient", &coefficient, "weight of the router z-loss; 0: off", at_least(0)});
}

}  // namespace conclave
