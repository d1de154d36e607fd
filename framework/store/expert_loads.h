// Measures of the load: they follow from how many tokens each expert received.
#pragma once

#include <cstdint>
#include <vector>

namespace conclave {

/// Sums over the experts of each expert rank, consecutive ones in equal shares: counts [..., experts] ->
/// [..., ranks].
std::vector<std::int64_t> load_per_expert_rank(const std::vector<std::int64_t>& counts, std::int64_t experts,
                                               std::int64_t ranks);
/// How many times its even share of a row's tokens each expert received: counts [rows, experts] ->
/// [rows, experts]; 1 for a row without any.
std::vector<double> relative_loads(const std::vector<std::int64_t>& counts, std::int64_t experts);
/// For each row of loads [rows, width]: largest / mean - 1; 0 for a row without any. [rows]
std::vector<double> load_violations(const std::vector<std::int64_t>& loads, std::int64_t width);

}  // namespace conclave
