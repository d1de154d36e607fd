// How far experts have specialised on domains, from what an evaluation gathered.
#pragma once

#include <vector>

#include "launch/train/evaluator.h"

namespace conclave {

/// An expert is frequent in a domain when it has at least so many times the even share, 1 / experts, of the
/// domain's assignments.
constexpr double frequent_share = 2.0;

/// Returns q(. | d) of one layer: [experts]; zeros for a domain without tokens.
std::vector<double> assignment_shares(const DomainResult& result, std::int64_t layer, std::int64_t experts);

/// LayerSpecialisation measures one layer. q(e | d) is the share of domain d's assignments that expert e
/// received; it sums to 1 over e. (The share of d's tokens that chose e is top_k times as much.) Domains
/// weigh alike.
struct LayerSpecialisation {
  double mutual_information = 0;  // nats: mean over d of KL(q(. | d) || mean over d of q)
  double largest_share = 0;       // max over d and e of q(e | d); 1 / experts when nothing has specialised
  double load_entropy = 0;        // nats, of the mean over d of q; log(experts) when load is even
  double score_sum = 0;           // mean over d of DomainResult::score_sum; top_k / experts when p is uniform
  double routing_entropy = 0;  // nats; mean over d of DomainResult::entropy; log(experts) when p is uniform
  /// [domains, domains]: |both| / |either| (Jaccard) of the sets of frequent experts; NaN where neither
  /// domain has one.
  std::vector<double> overlap{};
  double mean_overlap = 0;  // over pairs of different domains; NaN without any
};

/// Score sums and entropies are zero where the results hold none, as those of an experts.h5 of an earlier
/// version.
std::vector<LayerSpecialisation> measure_specialisation(const std::vector<DomainResult>& results,
                                                        std::int64_t layers, std::int64_t experts);

}  // namespace conclave
