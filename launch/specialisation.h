// How far experts have specialised on domains, from the counts of an evaluation.
#pragma once

#include <string>
#include <vector>

#include "launch/evaluator.h"

namespace conclave {

/// Of one layer. With q(e | d) the share of domain d's assignments that expert e received, domains weighing
/// alike:
struct LayerSpecialisation {
  double mutual_information = 0;  // nats: mean over d of KL(q(. | d) || mean over d of q)
  double largest_share = 0;       // max over d and e of q(e | d); 1 / experts when nothing has specialised
  double entropy = 0;             // nats, of the mean over d of q; log(experts) when load is even
};

std::vector<LayerSpecialisation> measure_specialisation(const std::vector<DomainResult>& results,
                                                        std::int64_t layers, std::int64_t experts);

/// Tables for a terminal: losses by domain, specialisation by layer, and each domain's most frequent experts.
std::string evaluation_tables(const std::vector<DomainResult>& results, std::int64_t layers,
                              std::int64_t experts);

}  // namespace conclave
