// How far experts have specialised on domains, from what an evaluation gathered.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/evaluator.h"

namespace conclave {

/// An expert is frequent in a domain when its share of the domain's assignments is at least so many times the
/// even share, 1 / experts.
constexpr double frequent_share = 2.0;

/// Of one layer. q(e | d): the share of domain d's assignments that expert e received; it sums to 1 over e.
/// (The share of d's tokens that chose e is top_k times as much.) Domains weigh alike.
struct LayerSpecialisation {
  double mutual_information = 0;  // nats: mean over d of KL(q(. | d) || mean over d of q)
  double largest_share = 0;       // max over d and e of q(e | d); 1 / experts when nothing has specialised
  double load_entropy = 0;        // nats, of the mean over d of q; log(experts) when load is even
  double score_sum = 0;           // mean over d of DomainResult::score_sum; top_k / experts when p is uniform
  double routing_entropy = 0;  // nats; mean over d of DomainResult::entropy; log(experts) when p is uniform
  /// [domains, domains]; of the sets of frequent experts |both| / |either| (Jaccard); NaN where neither
  /// domain has one.
  std::vector<double> overlap{};
  double mean_overlap = 0;  // over pairs of different domains; NaN without any
};

/// Score sums and entropies are zero where the results hold none, as those of an experts.h5 of old.
std::vector<LayerSpecialisation> measure_specialisation(const std::vector<DomainResult>& results,
                                                        std::int64_t layers, std::int64_t experts);

/// What the numbers of an evaluation mean.
struct EvaluationContext {
  std::string checkpoint;        // its path
  std::int64_t first_block = 0;  // blocks before it have no experts
  std::int64_t layers = 0;       // that have
  std::int64_t experts = 0, top_k = 0;
};

/// Tables for a terminal: losses by domain, specialisation by layer, and each domain's most frequent experts.
std::string evaluation_tables(const std::vector<DomainResult>& results, const EvaluationContext& context);

/// The losses of two checkpoints on the same text: that of `results`, of `others`, and how much more the
/// others lose, by domain and in the mean.
std::string comparison_table(const std::vector<DomainResult>& results,
                             const std::vector<DomainResult>& others);

/// {"domains": [{"domain", "lm_loss"}...], "mean_lm_loss"}: losses of `others` minus those of `results`.
nlohmann::ordered_json comparison_json(const std::vector<DomainResult>& results,
                                       const std::vector<DomainResult>& others);

/// What evaluation_tables() tells and all that is behind it: docs/specialisation.md names every key. NaN
/// becomes null.
nlohmann::ordered_json evaluation_json(const std::vector<DomainResult>& results,
                                       const EvaluationContext& context);

}  // namespace conclave
