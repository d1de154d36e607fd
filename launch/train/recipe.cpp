#include "launch/train/recipe.h"

#include "framework/data/batch_ramp.h"
#include "framework/recipe/visitor.h"

namespace conclave {

void describe(Visitor& v, TrainingRecipe& t) {
  v.key({"global_batch_size",
         &t.global_batch_size,
         "sequences per step, over all ranks",
         size(),
         {.other_names = {"batch_size"}}});
  v.key({"micro_batch_size",
         &t.micro_batch_size,
         "sequences that a rank computes at once",
         size(),
         {.other_names = {"micro_batch"}}});
  v.key({"steps", &t.steps, "optimizer steps", count(), {.other_names = {"max_steps", "train_iters"}}});
  v.key({"seed", &t.seed, "seed of everything random", {}, {.gives_meaning_to = Saved::counts}});
  v.key({"device", &t.device,
         "where it runs: cpu or cuda (one GPU per rank); emulated, a GPU's code on the host's cores, is for "
         "tests"});
  v.key({"precision", &t.precision, "number format: fp32, bf16 (with fp32 master weights) or fp64"});
  v.key({"threads", &t.threads, "threads per rank; 0: the node's cores shared evenly", between(0, 65536)});
  v.key({"recompute", &t.recompute, "what backward computes again to save memory: none or block"});
  v.key({"lm_z_loss_coefficient", &t.lm_z_loss_coefficient, "weight of the LM head's z-loss; 0: off",
         at_least(0)});
  v.key({"skip_limit", &t.skip_limit,
         "steps skipped in a row for NaN or infinity, after which the run goes back to the last checkpoint",
         count()});
  v.key({"rollback_limit", &t.rollback_limit, "how often a run goes back before it gives up with exit code 4",
         count_or_zero()});
  v.key({"replica_check_interval", &t.replica_check_interval,
         "steps between comparisons of replicated parameters and of the ranks' speed; 0: never",
         count_or_zero()});
  v.key(
      {"watchdog_seconds", &t.watchdog_seconds,
       "a job without progress for so long ends with exit code 5 and says why; longer than the longest save; "
       "0: off",
       between(0, 1e9)});
  v.key({"time_limit", &t.time_limit,
         "save and exit with 75 before so much time is over: seconds, or MM:SS, HH:MM:SS, D-HH, D-HH:MM or "
         "D-HH:MM:SS as in Slurm; 0: no limit",
         filled()});
  section(v, "batch_ramp", t.batch_ramp, "a global batch that grows at the start");
}

void describe(Visitor& v, CheckpointRecipe& c) {
  v.key({"interval",
         &c.interval,
         "steps between checkpoints; 0: only at the end",
         count_or_zero(),
         {.other_names = {"save_interval"}}});
  v.key({"keep", &c.keep, "newest checkpoints that stay; 0: all", count_or_zero()});
  v.key({"resume", &c.resume, "go on from the newest checkpoint; false: refuse to overwrite", {}});
  v.key({"asynchronous", &c.asynchronous, "write while the next steps run", {}});
  v.key({"initialize_from",
         &c.initialize_from,
         "a checkpoint or run to begin with where this run has no checkpoint yet",
         {.one_line = true}});
  v.key({"take",
         &c.take,
         "what is taken from it: parameters, optimizer, data_position",
         {.filled = true, .words = {"parameters", "optimizer", "data_position"}}});
  v.key({"accept_changes",
         &c.accept_changes,
         "keys, such as model.rope_theta, whose change at a resume is meant although it gives the checkpoint "
         "another meaning",
         {}});
}

void describe(Visitor& v, EvaluationRecipe& e) {
  v.key({"interval", &e.interval, "steps between evaluations; 0: only at the end", count_or_zero()});
  v.key({"batches", &e.batches, "global batches per domain; 0: the whole validation text", count_or_zero()});
}

void describe(Visitor& v, LoggingRecipe& l) {
  v.key({"interval", &l.interval, "steps between lines of metrics.jsonl", count()});
  v.key({"dead_expert_steps", &l.dead_expert_steps,
         "an expert without a token for so many steps is named in the log; 0: never", count_or_zero()});
  v.key({"samples", &l.samples, "write which training sequences each step took to samples.jsonl", {}});
  v.key({"profile",
         &l.profile,
         "write where the steps' time goes to profile.txt, and a trace for ui.perfetto.dev to trace.json",
         {}});
  v.key({"tensorboard", &l.tensorboard, "write event files for TensorBoard to tensorboard/", {}});
}

void describe(Visitor& v, Recipe& r) {
  v.key({"name", &r.name, "name of the run", filled_line()});
  section(v, "model", r.model, "the transformer");
  section(v, "data", r.data, "text and how it is cut");
  section(v, "parallel", r.parallel, "how ranks share the work; data parallelism takes the rest");
  section(v, "training", r.training, "batches, length and machine");
  section(v, "optimizer", r.optimizer, "how weights change");
  section(v, "checkpoint", r.checkpoint, "what is saved when");
  section(v, "evaluation", r.evaluation, "measuring on held-out text");
  section(v, "logging", r.logging, "what is written while training");
  v.key({"output", &r.output, "directory of the run", filled_line(), {.other_names = {"output_dir"}}});
}

std::int64_t batch_size_at(const TrainingRecipe& training, std::int64_t step) {
  return batch_size_at(training.batch_ramp, training.global_batch_size, step);
}

}  // namespace conclave
