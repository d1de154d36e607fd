// experts.h5 tells this about a run, for the report: loads over time, choices by domain, specialisation, and
// experts that no token chooses any more.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace conclave {

struct ExpertMapOptions {
  std::vector<std::int64_t> blocks{};  // those with experts; empty: all, from 0
  std::int64_t dead_steps = 100;       // logged steps without a token that make an expert a dead one
  std::size_t most_cells = 250'000;    // of all heat maps over time
};

/// {"blocks": [number...], "experts": n, "steps": [[first, last]...],
///  "loads": [block][stretch of steps][expert], in thousandths of the expert's even share,
///  "dead": [{"block", "expert", "last_step"}...], last_step 0: never chosen;
///  after an evaluation also "domains": [name...], "evaluation_step": n,
///  "domain_loads": [block][domain][expert], in thousandths of the even share,
///  "overlaps": [block][domain][domain], in thousandths,
///  "specialisation": [{"block", "mutual_information", "largest_share", "load_entropy", "score_sum",
///  "routing_entropy", "mean_overlap"}...],
///  "information": {"steps": [step...], "blocks": [block][evaluation]},
///  and where experts.h5 has them "domain_score_sums": [domain][block], in thousandths,
///  "domain_entropies": [domain][block], in thousandths of log(experts),
///  "sharpness": {"steps": [step...], "score_sums": [block][evaluation], "entropies": likewise}}
/// Measures are those of launch/train/specialisation.h; null where one is not defined. Steps are read in
/// parts. Throws Fault::data where the file is missing or damaged.
nlohmann::ordered_json expert_maps(const std::filesystem::path& path, const ExpertMapOptions& options);

}  // namespace conclave
