// These checks hold for every backend: what route(), and the kernels of pools, ask of their arguments before
// they compute. Shapes are in kernels.h.
#pragma once

#include "framework/kernels/kernels.h"

namespace conclave {

inline void check_route(const Tensor& logits, const Tensor& tokens, const RouteRule& rule,
                        const RouteResult& result) {
  const std::int64_t count = logits.dim(0), experts = logits.dim(1), top_k = result.experts.dim(1);
  const std::int64_t sequences = result.counts.dim(0), first = result.first_token, length = result.length;
  check(rule.groups >= 1 && experts % rule.groups == 0 && rule.chosen_groups <= rule.groups &&
            top_k <= experts / rule.groups * rule.chosen_groups && first + count <= sequences * length,
        "route: top_k ", top_k, " of ", experts, " experts in ", rule.chosen_groups, " of ", rule.groups,
        " groups for ", count, " tokens from token ", first, " of ", sequences, " sequences of ", length,
        " cannot be");
  check_tensor(tokens, "route", "tokens", {count}, DType::int32);
  check_tensor(result.probability_sums, "route", "probability_sums", {sequences, experts}, DType::float64);
  if (rule.selection_bias.defined())
    check_tensor(rule.selection_bias, "route", "selection_bias", {experts}, DType::float64);
}

/// The shapes and types that every backend's sum_over_documents() and mask_outside_pools() ask for. The
/// contents of `documents` are not checked, as they may lie on a device.
inline void check_documents(const Tensor& logits, const Tensor& documents, const Tensor& sums) {
  check_tensor(documents, "documents of pools", "documents", {documents.rows(), 3}, DType::int32);
  check_tensor(sums, "documents of pools", "sums", {documents.rows(), logits.dim(1)}, DType::float64);
}

}  // namespace conclave
