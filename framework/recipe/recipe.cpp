#include "framework/recipe/recipe.h"

#include "framework/recipe/visitor.h"

namespace conclave {

void describe(Visitor& v, SelectionBiasRecipe& b) {
  v.key({"rate", &b.rate, "how far it moves after each step; 0: no bias", at_least(0)});
  v.key({"scope", &b.scope,
         "the tokens whose load it follows: sequence, micro_batch, data_parallel or global_batch",
         one_of({"sequence", "micro_batch", "data_parallel", "global_batch"})});
  v.key({"recentre", &b.recentre, "keep the mean over experts at zero", {}});
  v.key({"last_step",
         &b.last_step,
         "it stands still after this step, the first being 0; -1: moves to the end",
         {.least = -1, .most = largest_count}});
}

void describe(Visitor& v, PoolRecipe& p) {
  v.key({"minimum",
         &p.minimum,
         "fewest experts in a document's pool in training",
         size_or_zero(),
         {.gives_meaning_to = Saved::weights}});
  v.key({"maximum",
         &p.maximum,
         "most of them, each number equally likely; 0: no pools",
         size_or_zero(),
         {.gives_meaning_to = Saved::weights}});
  v.key({"evaluation",
         &p.evaluation,
         "experts in a pool outside of training: evaluate, generate, validation",
         size_or_zero(),
         {.gives_meaning_to = Saved::weights}});
}

void describe(Visitor& v, RouterRecipe& r) {
  v.key({"kind",
         &r.kind,
         "how logits become scores: softmax or sigmoid",
         one_of({"softmax", "sigmoid"}),
         {.gives_meaning_to = Saved::weights}});
  v.key({"norm_topk_prob",
         &r.norm_topk_prob,
         "weights of the chosen experts are made to sum to 1",
         {},
         {.gives_meaning_to = Saved::weights}});
  v.key({"routed_scaling_factor",
         &r.routed_scaling_factor,
         "factor on the weights of the chosen experts",
         above(0),
         {.gives_meaning_to = Saved::weights}});
  v.key({"n_group",
         &r.n_group,
         "groups of consecutive experts; 1: no groups",
         size(),
         {.gives_meaning_to = Saved::weights}});
  v.key({"topk_group",
         &r.topk_group,
         "groups that a token's experts come from",
         size(),
         {.gives_meaning_to = Saved::weights}});
  v.key({"z_loss_coefficient", &r.z_loss_coefficient, "weight of the router z-loss; 0: off", at_least(0)});
  section(v, "bias", r.bias, "balancing without a loss: a bias on the choice, moved against the load");
  section(v, "pool", r.pool, "experts that all tokens of a document choose from, drawn in size (EMO)");
}

void describe(Visitor& v, BalanceRecipe& b) {
  v.key({"scope", &b.scope,
         "the tokens that a token is balanced with: sequence, micro_batch, group, data_parallel, "
         "shuffle (as many as a micro-batch, from anywhere in the step) or global_batch",
         one_of({"sequence", "micro_batch", "group", "data_parallel", "shuffle", "global_batch"})});
  v.key({"estimator", &b.estimator,
         "how global_batch foresees later micro-batches: running, warm, lagged or exact",
         one_of({"running", "warm", "lagged", "exact"})});
  v.key({"coefficient", &b.coefficient, "weight of this term in the loss", at_least(0)});
  v.key({"first_step", &b.first_step, "the term acts from this step, the first being 0", count_or_zero()});
  v.key({"last_step",
         &b.last_step,
         "to this step, included; -1: to the end",
         {.least = -1, .most = largest_count}});
  v.key({"balance_batch_size", &b.balance_batch_size, "sequences per group, for the scope group",
         size_or_zero()});
  v.key({"expert_groups", &b.expert_groups,
         "evens the load of so many groups of consecutive experts, their members free: DeepSeekMoE's "
         "device-level loss; 0: of each expert",
         size_or_zero()});
}

void describe(Visitor& v, MoeRecipe& m) {
  v.key({"num_experts", &m.num_experts, "routed experts of a block", size()});
  v.key({"num_experts_per_tok",
         &m.num_experts_per_tok,
         "experts that each token is sent to",
         size(),
         {.other_names = {"top_k"}, .gives_meaning_to = Saved::weights}});
  v.key({"moe_intermediate_size", &m.moe_intermediate_size, "inner width of one expert", size()});
  v.key({"num_shared_experts", &m.num_shared_experts, "experts that see every token", size_or_zero()});
  v.key({"first_k_dense_replace", &m.first_k_dense_replace, "leading blocks that keep a dense MLP",
         size_or_zero()});
  v.key({"capacity_factor",
         &m.capacity_factor,
         "an expert takes at most this times its even share of each sequence and the rest is dropped; 0: no "
         "bound",
         at_least(0),
         {.gives_meaning_to = Saved::weights}});
  v.key({"layer_reduction", &m.layer_reduction, "auxiliary losses over layers: sum or mean",
         one_of({"sum", "mean"})});
  section(v, "router", m.router, "which experts a token goes to");
  list(v, "balance", m.balance, "terms of the load-balancing loss, all acting at once");
}

void describe(Visitor& v, ModelRecipe& m) {
  v.key({"vocab_size", &m.vocab_size, "number of token ids", size()});
  v.key({"hidden_size", &m.hidden_size, "width of a token's state", size(), {.other_names = {"n_embd"}}});
  v.key({"intermediate_size",
         &m.intermediate_size,
         "inner width of a dense MLP",
         size(),
         {.other_names = {"ffn_hidden_size"}}});
  v.key({"num_hidden_layers",
         &m.num_hidden_layers,
         "number of blocks",
         size(),
         {.other_names = {"num_layers", "n_layers", "n_layer"}}});
  v.key({"num_attention_heads",
         &m.num_attention_heads,
         "query heads",
         size(),
         {.other_names = {"n_heads", "n_head"}, .gives_meaning_to = Saved::weights}});
  v.key({"num_key_value_heads",
         &m.num_key_value_heads,
         "key and value heads; divides the query heads",
         size(),
         {.other_names = {"num_query_groups"}, .gives_meaning_to = Saved::weights}});
  v.key({"head_dim", &m.head_dim, "width of one head; even", size(), {.gives_meaning_to = Saved::weights}});
  v.key({"rope_theta",
         &m.rope_theta,
         "base of the rotary position frequencies",
         above(0),
         {.gives_meaning_to = Saved::weights}});
  v.key({"partial_rotary_factor",
         &m.partial_rotary_factor,
         "part of each head, at its front, that positions turn; GLM-4-MoE has 0.5",
         {.least = 0, .most = 1, .least_excluded = true},
         {.gives_meaning_to = Saved::weights}});
  v.key({"rms_norm_eps",
         &m.rms_norm_eps,
         "added to the mean square in RMSNorm",
         above(0),
         {.other_names = {"norm_eps"}, .gives_meaning_to = Saved::weights}});
  v.key({"qk_norm", &m.qk_norm, "RMSNorm of queries and keys before they are turned", {}});
  v.key({"qk_norm_over",
         &m.qk_norm_over,
         "what it normalises: head, each by itself as Qwen3, or all_heads, a token's together as OLMoE",
         one_of({"head", "all_heads"}),
         {.gives_meaning_to = Saved::weights}});
  v.key({"tie_word_embeddings", &m.tie_word_embeddings, "LM head and embedding share their weights", {}});
  v.key({"initializer_range", &m.initializer_range, "standard deviation of initial weights", above(0)});
  v.key({"scale_residual_init",
         &m.scale_residual_init,
         "divide it by sqrt(2 * layers) where a block adds to its input",
         {}});
  section(v, "moe", m.moe, "the experts");
}

void describe(Visitor& v, DatasetRecipe& d) {
  v.key({"path", &d.path, "PREFIX of PREFIX.bin and PREFIX.idx", filled_line()});
  v.key({"domain", &d.domain, "name of this kind of text", filled_line()});
  v.key({"weight",
         &d.weight,
         "share of the mixture, relative to the other weights; size: by its tokens, 1 on average",
         {.least = 0, .least_excluded = true, .infinity_word = "size"}});
}

void describe(Visitor& v, DataRecipe& d) {
  v.key({"sequence_length",
         &d.sequence_length,
         "tokens per sequence",
         size(),
         {.other_names = {"seq_len", "seq_length"}, .gives_meaning_to = Saved::counts}});
  v.key({"tokenizer",
         &d.tokenizer,
         "bytes, or the path of a tokenizer.json or a SentencePiece .model",
         filled_line(),
         {.gives_meaning_to = Saved::weights}});
  list(v, "train", d.train, "domains to train on");
  list(v, "validation", d.validation, "held-out text, each entry evaluated by itself");
  v.key({"document_mask",
         &d.document_mask,
         "attention stays inside documents",
         {},
         {.gives_meaning_to = Saved::counts}});
  v.key({"domain_block", &d.domain_block, "consecutive sequences of one domain; 0 mixes freely",
         size_or_zero()});
}

void describe(Visitor& v, ParallelRecipe& p) {
  v.key({"tensor", &p.tensor, "ranks that share each matrix", size()});
  v.key({"expert", &p.expert, "ranks that share the experts of a block", size()});
  v.key({"expert_tensor", &p.expert_tensor, "ranks that share the matrices of one expert", size()});
  v.key({"sequence", &p.sequence, "split activations over the tensor ranks too", {}});
  v.key({"zero", &p.zero, "sharded over replicas: 0 nothing, 1 the optimizer's states", between(0, 1)});
  v.key({"dispatcher", &p.dispatcher, "how tokens reach experts on other ranks",
         one_of({"all_to_all", "all_gather"})});
  v.key({"dispatch_rows", &p.dispatch_rows,
         "most rows a rank receives from all_to_all at once, in rounds if need be; 0: no bound",
         count_or_zero()});
}

void describe(Visitor& v, BatchRampRecipe& b) {
  v.key({"start_batch_size", &b.start_batch_size, "sequences per step at first; 0: no ramp", size_or_zero()});
  v.key({"increment", &b.increment, "sequences added each time", size_or_zero()});
  v.key({"steps_per_increment", &b.steps_per_increment, "steps between additions", count_or_zero()});
}

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
         "tests",
         one_of({"cpu", "emulated", "cuda"})});
  v.key({"precision", &t.precision, "number format: fp32, bf16 (with fp32 master weights) or fp64",
         one_of({"fp32", "bf16", "fp64"})});
  v.key({"threads", &t.threads, "threads per rank; 0: the node's cores shared evenly", between(0, 65536)});
  v.key({"recompute", &t.recompute, "what backward computes again to save memory: none or block",
         one_of({"none", "block"})});
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

void describe(Visitor& v, ScheduleRecipe& s) {
  v.key({"kind", &s.kind, "constant, linear, cosine or wsd (warm-up, stable, decay)",
         one_of({"constant", "linear", "cosine", "wsd"})});
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
  v.key({"kind", &o.kind, "update rule", one_of({"adamw"})});
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

}  // namespace conclave
