#include "launch/train/rollbacks.h"

#include "framework/base/text.h"
#include "parallel/agreement.h"

namespace conclave {
namespace fs = std::filesystem;

void load_finite(Communicator& world, Trainer& trainer, fs::path& path, std::vector<std::string>& rejected) {
  const fs::path directory = path.parent_path();
  std::string sentences;
  for (std::optional<fs::path> candidate = path; candidate;) {
    try {
      agree(world, [&] { trainer.load(CheckpointReader(*candidate, Verify::nothing)); });
      path = *candidate;
      return;
    } catch (const Error& error) {
      if (error.fault() != Fault::numeric) throw;
      rejected.emplace_back(error.what());
      sentences += join_text("\n  ", error.what());
    }
    const FoundCheckpoint before = checkpoint_before(world, *candidate);
    rejected.insert(rejected.end(), before.rejected.begin(), before.rejected.end());
    candidate = before.path;
  }
  throw Error(Fault::numeric,
              join_text("no checkpoint in ", directory.string(), " has finite values:", sentences,
                        "\nTo start again from nothing, remove the directory."),
              Reach::all_ranks);
}

void Rollbacks::note(const StepResult& result, const Trainer& trainer) {
  ++steps_;
  skipped_in_row_ = result.skipped ? skipped_in_row_ + 1 : 0;
  skipped_ += result.skipped ? 1 : 0;
  if (result.skipped) return;
  was_good_ = true;
  last_update_ = {trainer.steps_done(), trainer.tokens_done(), trainer.sequences_done()};
}

std::string Rollbacks::describe_end(const StepResult& result) const {
  const std::string last = result.no_targets
                               ? std::string("has no target, and the update before it was skipped")
                               : join_text("is skipped: the loss is ", measured_text(result.loss),
                                           " and the gradient norm ", measured_text(result.gradient_norm));
  return join_text("step ", result.step, ", the last one, ", last, ". Of the ", counted(steps_, "step"),
                   " since this command began ", skipped_, skipped_ == 1 ? " was skipped" : " were skipped",
                   ", the last ", skipped_in_row_, " in a row.");
}

void Rollbacks::return_to_last_update(Trainer& trainer) const {
  trainer.go_on_after(last_update_.step, last_update_.tokens, last_update_.sequences);
}

fs::path Rollbacks::load_checkpoint(Trainer& trainer, const fs::path& newest,
                                    std::vector<std::string>& rejected) {
  const fs::path directory = newest.parent_path();
  const bool is_new = newest != newest_, was_bad_at_once = !is_new && !was_good_;
  const std::int64_t last = is_new ? step_of_name(newest) : step_of_name(base_) - (was_bad_at_once ? 1 : 0);
  FoundCheckpoint found = newest_checkpoint(world_, directory, last);
  // Where there is nothing before one that was bad at once, other data may still help.
  if (!found.path && was_bad_at_once) found = newest_checkpoint(world_, directory, last + 1);
  std::string sentences;
  for (const std::string& sentence : found.rejected) sentences += "\n  " + sentence;
  if (!found.path)
    throw Error(Fault::data,
                join_text("the run must go back, and there is no good checkpoint in ", directory.string(),
                          sentences.empty() ? "." : ":", sentences,
                          "\nTo start again from nothing, remove the directory."),
                Reach::all_ranks);
  rejected = std::move(found.rejected);
  load_finite(world_, trainer, *found.path, rejected);
  agree(world_, [&] {
    if (world_.rank() == 0) set_aside_checkpoints(directory, step_of_name(*found.path), last + 1);
  });
  return *found.path;
}

std::string Rollbacks::go_back(Trainer& trainer, const fs::path& newest, const StepResult& result) {
  const auto give_up = [&](const auto&... reasons) {
    throw Error(Fault::numeric,
                join_text("step ", result.step, ": the loss is ", measured_text(result.loss),
                          " and the gradient norm ", measured_text(result.gradient_norm), " after ",
                          counted(skipped_in_row_, "skipped step"), " in a row, and ", reasons...,
                          "; training cannot go on from here. A lower optimizer.lr or more warm-up may help; "
                          "log.txt names the layer and the data."),
                Reach::all_ranks);
  };
  if (times_ == recipe_.rollback_limit)
    give_up("the run has gone back ", counted(times_, "time"), " already (training.rollback_limit)");
  if (newest.empty()) give_up("there is no checkpoint to go back to");
  const std::int64_t tokens = trainer.tokens_done(), sequences = trainer.sequences_done();
  std::vector<std::string> rejected;
  base_ = load_checkpoint(trainer, newest, rejected);
  newest_ = newest;
  was_good_ = false;
  ++times_;
  skipped_in_row_ = 0;
  const std::int64_t step = trainer.steps_done();
  trainer.go_on_after(result.step, tokens, sequences);
  std::string left_out;
  for (const std::string& sentence : rejected) left_out += " " + sentence;
  return join_text("Going back to the parameters of step ", step, " (", base_.string(),
                   ") and on with the data after step ", result.step, "; time ", times_, " of ",
                   recipe_.rollback_limit, ".",
                   left_out.empty() ? "" : " Newer ones were left out:", left_out);
}

}  // namespace conclave
