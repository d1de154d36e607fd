#include "optim/recipe.h"

#include "framework/recipe/requirements.h"

namespace conclave {

void describe(Visitor& v, ScheduleRecipe& s) {
  v.key({"kind", &s.kind, "constant, linear, cosine or wsd (warm-up, stable, decay)"});
  v.key({"warmup_steps",
         &s.warmup_steps,
         "steps of linear warm-up",
         count_or_zero(),
         {.other_names = {"warmup", "lr_warmup_steps"}}});
  v.key({"min_lr_ratio",
         &s.min_lr_ratio,
         "last learning rate over the highest",
         between(0, 1),
         {.other_names = {"min_lr"}}});
  v.key({"decay_steps", &s.decay_steps, "wsd: length of the last decay; 0: a tenth of the steps",
         count_or_zero()});
}

void describe(Visitor& v, ParameterGroupRecipe& g) {
  v.key({"pattern", &g.pattern, "parameter names that it takes; * stands for any text", filled()});
  v.key({"lr_scale", &g.lr_scale, "factor on the learning rate", at_least(0)});
  v.key({"weight_decay", &g.weight_decay, "its own decay; below zero: the optimizer's", {}});
  v.key({"frozen", &g.frozen, "never updated", {}});
}

void describe(Visitor& v, OptimizerRecipe& o) {
  v.key({"kind", &o.kind, "update rule", one_of(optimizer_names())});
  v.key({"lr", &o.lr, "highest learning rate", above(0), {.other_names = {"learning_rate", "max_lr"}}});
  v.key({"betas",
         &o.betas,
         "decay of the first and second moment",
         {.least = 0, .most = 1, .most_excluded = true}});
  v.key({"eps", &o.eps, "added to the root of the second moment", above(0)});
  v.key({"weight_decay", &o.weight_decay, "decoupled decay, none on norms and biases", at_least(0)});
  v.key({"grad_clip",
         &o.grad_clip,
         "largest global norm of the gradient; 0: no clipping",
         at_least(0),
         {.other_names = {"clip_grad", "max_grad_norm"}}});
  section(v, "schedule", o.schedule, "the learning rate over the steps");
  list(v, "groups", o.groups, "parameters with settings of their own; the first match counts");
}

void require_possible(const Requirements& r, const OptimizerRecipe& o, std::int64_t steps) {
  r.require(o.betas.size() == 2, "optimizer.betas", o.betas.size(),
            o.betas.size() == 1 ? " value" : " values", " came, expected two, for example [0.9, 0.95]");
  const ScheduleRecipe& s = o.schedule;
  const std::string key = "optimizer.schedule.";
  r.require(s.decay_steps == 0 || s.kind == ScheduleKind::wsd, key + "decay_steps", s.decay_steps,
            " came, but the schedule '", s.kind, "' decays by training.steps; expected 0, or kind: wsd");
  r.require(s.decay_steps == 0 || s.decay_steps <= steps - s.warmup_steps, key + "decay_steps", s.decay_steps,
            " steps of decay came, but training.steps: ", steps, " leaves ", steps - s.warmup_steps,
            " after warm-up");
}

}  // namespace conclave
