#include "launch/train/run/run_directory.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "framework/base/text.h"
#include "framework/data/recipe.h"
#include "framework/store/durable_file.h"
#include "framework/store/expert_loads.h"
#include "framework/store/lookup.h"
#include "launch/train/checkpoint_choice.h"
#include "launch/train/earlier_files.h"
#include "launch/train/evaluation_lines.h"
#include "launch/train/recipe_parts.h"
#include "launch/train/recipe_text.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

std::filesystem::path prepare(const Recipe& recipe, std::optional<std::int64_t> resumed_step,
                              const std::string& resumed_recipe, std::vector<std::string>& notes) {
  const std::filesystem::path path = recipe.output;
  refuse_foreign_files(path, recipe.logging.profile);
  if (!resumed_step)
    if (const std::string moved = move_earlier_files(path); !moved.empty()) notes.push_back(moved);
  make_directories(path / "checkpoints");
  remove_partial_checkpoints(path / "checkpoints");
  // All that are newer than the one that was found were rejected.
  if (resumed_step)
    for (const std::string& name :
         set_aside_checkpoints(path / "checkpoints", *resumed_step, std::numeric_limits<std::int64_t>::max()))
      notes.push_back(join_text("A checkpoint that was rejected is kept as ", name,
                                " until enough newer good ones stay."));
  keep_recipe(path, to_yaml(recipe), resumed_step, resumed_recipe);
  return path;
}

/// The log of an earlier start of the run is cut back like the metrics, also where this one logs
/// nothing.
std::unique_ptr<MetricsWriter> open_samples(const std::filesystem::path& path, bool wanted,
                                            std::optional<std::int64_t> resumed_step) {
  if (!wanted && !is_there(path)) return nullptr;
  auto writer = std::make_unique<MetricsWriter>(path.string(), resumed_step);
  return wanted ? std::move(writer) : nullptr;
}

}  // namespace

ResumePoint find_resume_point(const Recipe& recipe, Communicator& world) {
  const std::filesystem::path path = recipe.output;
  const FoundCheckpoint found = newest_checkpoint(world, path / "checkpoints");
  agree(world, [&] {
    if (world.rank() != 0) return;
    const bool holds_run =
        found.path.has_value() || !found.rejected.empty() || is_there(path / "metrics.jsonl");
    check(recipe.checkpoint.resume || !holds_run, Fault::request, "output: ", path.string(),
          " holds a run already and checkpoint.resume is false; choose another output, or remove it");
    std::string sentences;
    for (const std::string& sentence : found.rejected) sentences += "\n  " + sentence;
    check(found.path || found.rejected.empty(), Fault::data, "output: no checkpoint in ", path.string(),
          " is good:", sentences, "\nTo start again from nothing, remove the directory.");
  });
  return {found.path, found.rejected};
}

RunDirectory::RunDirectory(const DirectoryLock& lock, const Recipe& recipe,
                           std::optional<std::int64_t> resumed_step, const std::string& resumed_recipe,
                           std::vector<std::string> domains, std::function<void(const std::string&)> warn)
    : lock_(lock),
      path_(prepare(recipe, resumed_step, resumed_recipe, notes_)),
      experts_per_layer_(recipe.model.moe.num_experts),
      expert_ranks_(recipe.parallel.expert),
      lacks_evaluation_(resumed_step && !keep_whole_evaluation(path_ / "metrics.jsonl", *resumed_step)),
      metrics_((path_ / "metrics.jsonl").string(), resumed_step),
      samples_(open_samples(path_ / "samples.jsonl", recipe.logging.samples, resumed_step)),
      experts_(path_ / "experts.h5", {.layers = count_moe_layers(recipe.model),
                                      .experts = recipe.model.moe.num_experts,
                                      .expert_ranks = recipe.parallel.expert,
                                      .domains = domains,
                                      .resume_step = resumed_step.value_or(-1),
                                      .flush_interval = 50,
                                      .warn = std::move(warn)}),
      events_(recipe.logging.tensorboard
                  ? std::make_unique<EventLog>(path_ / "tensorboard", recipe, resumed_step, domains)
                  : nullptr) {
  if (const std::int64_t lines = metrics_.dropped_lines(); lines > 0)
    notes_.push_back(join_text("metrics.jsonl loses ", counted(lines, "line"), " of steps after ",
                               *resumed_step, ", which were not saved and are trained again."));
}

void RunDirectory::write_step(const StepResult& result, double seconds, double model_flops_per_token,
                              const TrafficTable& traffic) {
  lock_.check_ours();  // what is kept of experts may be written by name
  // A step that was left out has not computed anything, so it has no rate.
  const double tokens = result.no_targets ? std::nan("") : static_cast<double>(result.tokens);
  Metrics line = {{"step", result.step},
                  {"tokens", result.tokens},
                  {"target_tokens", result.target_tokens},
                  {"lm_loss", result.lm_loss},
                  {"load_balance_loss", result.balance.load_balance_loss},
                  {"global_load_balance_loss", result.balance.global_balance_loss},
                  {"loss", result.loss},
                  {"grad_norm", result.gradient_norm},
                  {"learning_rate", result.learning_rate},
                  {"step_seconds", seconds},
                  {"tokens_per_second", tokens / seconds},
                  {"model_flops_per_second", tokens * model_flops_per_token / seconds},
                  {"max_load_violation", result.balance.max_load_violation},
                  {"balance_estimator_error", result.balance.estimator_error}};
  for (const BalanceReport::Other& other : result.balance.others)
    std::visit([&](auto number) { line.emplace_back(other.name, number); }, other.number);
  if (expert_ranks_ > 1 && !result.balance.counts.empty()) {
    const std::vector<double> violations = load_violations(
        load_per_expert_rank(result.balance.counts, experts_per_layer_, expert_ranks_), expert_ranks_);
    line.emplace_back("max_rank_load_violation", *std::max_element(violations.begin(), violations.end()));
  }
  if (result.skipped) line.emplace_back("skipped", true);
  if (result.no_targets) line.emplace_back("no_targets", true);
  for (int i = 0; i < purposes; ++i) {
    const auto purpose = static_cast<Purpose>(i);
    if (traffic[purpose].calls == 0) continue;
    line.emplace_back(join_text("bytes_", conclave::name_of(purpose)), traffic[purpose].bytes);
    line.emplace_back(join_text("wait_seconds_", conclave::name_of(purpose)), traffic[purpose].wait_seconds);
  }
  metrics_.write(line);
  if (!result.balance.counts.empty())
    experts_.add_step(result.step, result.balance.counts, result.balance.mean_probability,
                      result.balance.layer_balance_loss);
  if (events_) events_->add_step(line, result.balance);
}

void RunDirectory::write_samples(std::int64_t step, bool skipped, const std::vector<DrawnSequence>& drawn) {
  lock_.check_ours();
  std::vector<std::int64_t> datasets, draws, sequences;
  for (const DrawnSequence& one : drawn) {
    datasets.push_back(one.dataset);
    draws.push_back(one.draw);
    sequences.push_back(one.sequence);
  }
  Metrics line = {{"step", step}, {"dataset", datasets}, {"draw", draws}, {"sequence", sequences}};
  if (skipped) line.emplace_back("skipped", true);
  if (samples_) samples_->write(line);
}

void RunDirectory::write_evaluation(std::int64_t step, const std::vector<DomainResult>& results) {
  lock_.check_ours();
  std::vector<std::int64_t> counts;
  std::vector<double> score_sum, entropy;
  std::vector<std::pair<std::string, double>> losses;  // of the domains that have targets, and their mean
  std::vector<std::int64_t> targets;
  std::int64_t tokens = 0;
  for (const DomainResult& result : results) {
    if (result.target_tokens > 0) {
      losses.emplace_back(result.domain, result.lm_loss);
      targets.push_back(result.target_tokens);
    }
    tokens += result.target_tokens;
    counts.insert(counts.end(), result.expert_counts.begin(), result.expert_counts.end());
    score_sum.insert(score_sum.end(), result.score_sum.begin(), result.score_sum.end());
    entropy.insert(entropy.end(), result.entropy.begin(), result.entropy.end());
  }
  if (tokens > 0) {
    losses.emplace_back(mean_of_domains, mean_over_domains(results));
    targets.push_back(tokens);
  }
  if (!counts.empty()) {
    experts_.add_evaluation(step, counts, score_sum, entropy);
    experts_.flush();
  }
  if (events_) events_->add_evaluation(step, losses, counts);
  for (std::size_t i = 0; i < losses.size(); ++i)
    metrics_.write({{"step", step},
                    {"split", std::string("validation")},
                    {"domain", losses[i].first},
                    {"lm_loss", losses[i].second},
                    {"perplexity", std::exp(losses[i].second)},
                    {"target_tokens", targets[i]}});
}

void RunDirectory::write_before_save(const std::vector<DatasetPasses>& passes, std::int64_t step,
                                     std::int64_t steps) {
  flush();
  write_passes(path_, passes, step, steps);
}

void RunDirectory::write_profile(const std::string& table, const std::string& trace) {
  lock_.check_ours();
  write_text_durably(path_ / "profile.txt", table);
  write_text_durably(path_ / "trace.json", trace);
}

void RunDirectory::flush() {
  lock_.check_ours();
  experts_.flush();
}

}  // namespace conclave
