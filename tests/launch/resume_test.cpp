// Resuming with everything on at once that a step can depend on: whatever the stop, the run ends bit-equal to
// one that was not stopped. And the comparison is sharp: a checkpoint that lacks its balance state is
// noticed.
#include <fstream>

#include "framework/data/batch_ramp.h"
#include "framework/data/dataset.h"
#include "framework/store/checkpoint_file.h"
#include "framework/store/expert_history.h"
#include "launch/train/recipe_text.h"
#include "launch/train/trainer.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

constexpr int last_step = 13;

/// Intervals 3 and 4: between saves come evaluations; the ramp, the warm-up and a switch of balance terms
/// fall on different sides of the stops below.
const std::string everything =
    "training.recompute=block training.lm_z_loss_coefficient=0.001 training.steps=13 checkpoint.interval=3"
    " evaluation.interval=4 optimizer.schedule.kind=cosine optimizer.schedule.warmup_steps=3"
    " training.batch_ramp.start_batch_size=4 training.batch_ramp.increment=4 "
    "training.batch_ramp.steps_per_increment=7"
    " 'optimizer.groups=[{pattern: model.embed_tokens.*, frozen: true},"
    " {pattern: \"*.experts.*\", lr_scale: 0.5, weight_decay: 0.02}]'"
    " 'model.moe.balance=[{scope: global_batch, estimator: warm, coefficient: 0.05},"
    " {scope: global_batch, estimator: exact, coefficient: 0.02, first_step: 8}]'"
    " model.moe.router.bias.rate=0.01 'model.moe.router.pool={minimum: 2, maximum: 4, evaluation: 3}' ";

std::string step_name(int step) {
  return "step-000000" + std::string(step < 10 ? "0" : "") + std::to_string(step);
}

class Resume : public Command {
 protected:
  static std::filesystem::path checkpoint(const std::string& output, int step) {
    return folder_ / output / "checkpoints" / step_name(step);
  }
  static void train_whole(const std::string& output, int ranks) {
    if (std::filesystem::exists(folder_ / output)) return;
    const Outcome outcome = train(output, everything, ranks);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  }
  /// The files that a run leaves when it is killed some time after saving this step: later lines and rows, no
  /// later checkpoint.
  static void copy_killed_after(const std::string& whole, const std::string& output, int step) {
    std::filesystem::copy(folder_ / whole, folder_ / output, std::filesystem::copy_options::recursive);
    for (int later = step + 1; later <= last_step; ++later)
      std::filesystem::remove_all(checkpoint(output, later));
  }
  static void resume(const std::string& output, int step, int ranks) {
    const Outcome outcome = train(output, everything, ranks);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find("Resuming after step " + std::to_string(step)), std::string::npos)
        << outcome.output;
  }

  /// The tensors of a step that differ.
  static std::vector<std::string> differing(const std::string& one, const std::string& other, int step) {
    const CheckpointReader a(checkpoint(one, step)), b(checkpoint(other, step));
    EXPECT_EQ(a.names(), b.names());
    EXPECT_EQ(a.integer("tokens"), b.integer("tokens"));
    EXPECT_EQ(a.integer("optimizer_updates"), b.integer("optimizer_updates"));
    std::vector<std::string> names;
    for (const std::string& name : a.names()) {
      const bool state = name.starts_with("state/");
      if (state ? a.read_all<double>(name) != b.read_all<double>(name)
                : a.read_all<float>(name) != b.read_all<float>(name))
        names.push_back(name);
    }
    return names;
  }
  static void expect_equal_runs(const std::string& one, const std::string& other) {
    EXPECT_EQ(metrics(one), metrics(other));
    for (const int step : {12, last_step}) EXPECT_EQ(differing(one, other, step), std::vector<std::string>{});
    const ExpertHistory a = read_expert_history(folder_ / one / "experts.h5"),
                        b = read_expert_history(folder_ / other / "experts.h5");
    EXPECT_EQ(a.step.size(), static_cast<std::size_t>(last_step));
    EXPECT_EQ(a.domains, b.domains);
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.counts, b.counts);
    EXPECT_EQ(a.probability, b.probability);
    EXPECT_EQ(a.load_per_expert_rank, b.load_per_expert_rank);
    EXPECT_EQ(a.layer_balance_loss, b.layer_balance_loss);
    EXPECT_EQ(a.layer_balance_loss.size(), static_cast<std::size_t>(2 * last_step));
    EXPECT_EQ(a.evaluation_step, b.evaluation_step);
    EXPECT_EQ(a.evaluation_counts, b.evaluation_counts);
    EXPECT_EQ(a.evaluation_score_sum, b.evaluation_score_sum);
    EXPECT_EQ(a.evaluation_entropy, b.evaluation_entropy);
    EXPECT_FALSE(a.evaluation_entropy.empty());
  }
};

TEST_F(Resume, KilledAfterAnyCheckpointItEndsBitEqual) {
  for (const int ranks : {1, 2}) {
    const std::string whole = "whole" + std::to_string(ranks);
    train_whole(whole, ranks);
    for (const int step : {3, 6, 9, 12}) {
      if (ranks == 2 && step % 6 != 0) continue;
      const std::string parts = whole + "-killed" + std::to_string(step);
      copy_killed_after(whole, parts, step);
      resume(parts, step, ranks);
      expect_equal_runs(whole, parts);
    }
  }
}

TEST_F(Resume, StoppedTwiceBetweenIntervalsItEndsBitEqual) {
  // The stop is a SIGTERM after any step: a long run, so that there is time for it.
  const std::string longer = everything + "training.steps=400 checkpoint.interval=30 evaluation.interval=40 ";
  ASSERT_EQ(train("undisturbed", longer).exit_code, 0);
  for (int stop = 0; stop < 2; ++stop) {
    // The shell waits for some lines more than there are, then signals.
    const std::string log = path("stopped") + "/metrics.jsonl";
    const Outcome outcome = run("export ASAN_OPTIONS=detect_leaks=0; before=$(cat " + log +
                                " 2>/dev/null | wc -l); OMP_NUM_THREADS=1 " + CONCLAVE_COMMAND + " train " +
                                path("recipe.yaml") + " output=" + path("stopped") + " " + longer +
                                " & child=$!; for i in $(seq 2000); do now=$(cat " + log +
                                " 2>/dev/null | wc -l); [ $now -gt $((before + 3)) ] && break; sleep 0.01; "
                                "done; kill -TERM $child; wait $child");
    ASSERT_EQ(outcome.exit_code, 75) << outcome.output;
  }
  const Outcome outcome = train("stopped", longer);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(metrics("undisturbed"), metrics("stopped"));
  for (const int step : {390, 400}) {
    const CheckpointReader a(folder_ / "undisturbed/checkpoints" / ("step-00000" + std::to_string(step))),
        b(folder_ / "stopped/checkpoints" / ("step-00000" + std::to_string(step)));
    ASSERT_EQ(a.names(), b.names());
    for (const std::string& name : a.names())
      if (name.starts_with("state/")) {
        EXPECT_EQ(a.read_all<double>(name), b.read_all<double>(name)) << name;
      } else {
        EXPECT_EQ(a.read_all<float>(name), b.read_all<float>(name)) << name;
      }
  }
}

TEST_F(Resume, FrozenAndRescaledGroupsWereInPlay) {
  train_whole("whole1", 1);
  const CheckpointReader first(checkpoint("whole1", 3)), last(checkpoint("whole1", last_step));
  const std::string frozen = "model/model.embed_tokens.weight",
                    scaled = "model/model.layers.0.mlp.experts.up_proj.weight";
  EXPECT_EQ(first.read_all<float>(frozen), last.read_all<float>(frozen));
  EXPECT_NE(first.read_all<float>(scaled), last.read_all<float>(scaled));
}

// A test of the tests above: without f of the previous step the next steps differ.
TEST_F(Resume, WithoutItsBalanceStateACheckpointGoesOnDifferently) {
  train_whole("whole1", 1);
  const CheckpointReader source(checkpoint("whole1", 6));
  const auto without_state = [&](const std::string& left_out) {
    CheckpointWriter writer(folder_ / ("without-" + left_out.substr(6)), 6);
    for (const std::string& name : source.names()) {
      if (name == left_out) continue;
      if (name.starts_with("state/"))
        writer.add(name, source.describe(name).dims, source.read_all<double>(name).data());
      else
        writer.add(name, source.describe(name).dims, source.read_all<float>(name).data());
    }
    for (const char* key : {"tokens", "sequences", "sequences_skipped", "optimizer_updates"})
      writer.set(key, source.integer(key));
    writer.set("recipe", source.text("recipe"));
    const CheckpointReader stateless(writer.commit());
    EXPECT_EQ(stateless.names().size() + 1, source.names().size());
    return stateless.path();
  };

  const Recipe recipe = parse_recipe(source.text("recipe"), "the checkpoint's recipe");
  TrainingData data(recipe.data, recipe.model.vocab_size, recipe.training.seed,
                    [&](std::int64_t step) { return batch_size_at(recipe.training, step); });
  Mesh mesh(self_communicator(), {});
  const auto next_steps = [&](const CheckpointReader& checkpoint) {
    Trainer trainer(recipe, mesh, [&](std::int64_t step, std::int64_t first, std::int64_t count) {
      return data.batch(step, first, count);
    });
    trainer.load(checkpoint);
    std::vector<double> losses, norms;
    for (int step = 0; step < 4; ++step) {
      const StepResult result = trainer.step();
      losses.push_back(result.loss);
      norms.push_back(result.gradient_norm);
    }
    return std::pair(losses, norms);
  };
  const auto with = next_steps(source);
  EXPECT_EQ(with, next_steps(source));
  for (const std::string state : {"state/previous_fractions", "state/selection_bias"}) {
    const auto without = next_steps(CheckpointReader(without_state(state)));
    for (std::size_t step = 0; step < 4; ++step) EXPECT_NE(with.first[step], without.first[step]) << state;
    EXPECT_NE(with.second[0], without.second[0]) << state;
  }
}

TEST_F(Resume, ASelectionBiasIsNotLostWithoutAWord) {
  train_whole("whole1", 1);
  copy_killed_after("whole1", "biased", 6);
  const Outcome outcome = train("biased", everything + "model.moe.router.bias.rate=0 ");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_NE(outcome.output.find("model.moe.router.bias.last_step: 0 keeps"), std::string::npos)
      << outcome.output;
}

}  // namespace
}  // namespace conclave
