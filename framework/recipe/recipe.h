// Recipe: everything a run is told, as plain structs with the defaults in place. Names follow the YAML keys
// one to one (a C++ keyword aside), and the YAML keys follow Hugging Face model configs where one exists.
// recipe/schema.h says each key's meaning and valid values once; layers and trainer take these structs as
// options.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "framework/recipe/places.h"

namespace conclave {

class Visitor;

/// A bias on the choice of experts alone, moved against their load after each step; no gradient, no loss.
struct SelectionBiasRecipe {
  double rate = 0;                     // 0: no bias
  std::string scope = "global_batch";  // sequence | micro_batch | data_parallel | global_batch
  bool recentre = false;               // keep the mean over experts at zero
  std::int64_t last_step = -1;         // stands still after this step; -1: moves to the end
  bool operator==(const SelectionBiasRecipe&) const = default;
};

/// Experts that a document's tokens may use, the same for all of them (EMO); maximum 0: all experts.
struct PoolRecipe {
  std::int64_t minimum = 0;     // in training as many as a uniform draw from here ...
  std::int64_t maximum = 0;     // ... to here says, for each document and layer
  std::int64_t evaluation = 0;  // outside of training
  bool operator==(const PoolRecipe&) const = default;
};
void describe(Visitor& v, PoolRecipe& p);

struct RouterRecipe {
  std::string kind = "softmax";  // softmax | sigmoid
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1.0;  // on the weights of the chosen experts
  std::int64_t n_group = 1;            // groups of experts, of which a token's experts come from ...
  std::int64_t topk_group = 1;         // ... so many
  double z_loss_coefficient = 0.001;
  SelectionBiasRecipe bias;
  PoolRecipe pool;
  bool operator==(const RouterRecipe&) const = default;
};
void describe(Visitor& v, RouterRecipe& r);

/// One term of the load-balancing loss; several may act at once.
struct BalanceRecipe {
  std::string scope = "global_batch";  // sequence | micro_batch | group | data_parallel | shuffle |
                                       // global_batch
  std::string estimator = "warm";  // running | warm | lagged | exact: how global_batch sees what is to come
  double coefficient = 0.01;
  std::int64_t first_step = 0;          // acts from this step, the first being 0 ...
  std::int64_t last_step = -1;          // ... to this one; -1: to the end
  std::int64_t balance_batch_size = 0;  // sequences per group, for the scope "group"
  std::int64_t expert_groups = 0;       // even the load of so many groups of experts; 0: of each expert
  bool operator==(const BalanceRecipe&) const = default;
};
void describe(Visitor& v, BalanceRecipe& b);

struct MoeRecipe {
  std::int64_t num_experts = 16;
  std::int64_t num_experts_per_tok = 2;
  std::int64_t moe_intermediate_size = 128;
  std::int64_t num_shared_experts = 0;
  std::int64_t first_k_dense_replace = 0;
  double capacity_factor = 0;  // places of an expert in a sequence, relative to an even share; 0: no bound
  std::string layer_reduction = "sum";  // sum | mean of the auxiliary losses over layers
  RouterRecipe router;
  std::vector<BalanceRecipe> balance = {BalanceRecipe{}};
  bool operator==(const MoeRecipe&) const = default;
};
void describe(Visitor& v, MoeRecipe& m);

struct ModelRecipe {
  std::int64_t vocab_size = 512;
  std::int64_t hidden_size = 128;
  std::int64_t intermediate_size = 512;  // of dense blocks
  std::int64_t num_hidden_layers = 4;
  std::int64_t num_attention_heads = 4;
  std::int64_t num_key_value_heads = 4;
  std::int64_t head_dim = 32;
  double rope_theta = 10000.0;
  double partial_rotary_factor = 1.0;  // of each head, the part at its front that positions turn
  double rms_norm_eps = 1.0e-6;
  bool qk_norm = true;
  std::string qk_norm_over = "head";  // head | all_heads: what is normalised together
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;
  bool scale_residual_init = false;  // divide the range of o_proj and down_proj by sqrt(2 * layers)
  MoeRecipe moe;
  bool operator==(const ModelRecipe&) const = default;
};
void describe(Visitor& v, ModelRecipe& m);

/// One token file of a domain: PREFIX.bin and PREFIX.idx; a domain may have several.
struct DatasetRecipe {
  std::string path;
  std::string domain;
  double weight = 1.0;  // infinity, written `size`: by its tokens (framework/data/mixture.h)
  bool operator==(const DatasetRecipe&) const = default;
};
void describe(Visitor& v, DatasetRecipe& d);

struct DataRecipe {
  std::int64_t sequence_length = 256;
  std::string tokenizer = "bytes";  // or the path of a tokenizer.json or a SentencePiece .model
  std::vector<DatasetRecipe> train;
  std::vector<DatasetRecipe> validation;
  bool document_mask = true;
  std::int64_t domain_block = 0;
  bool operator==(const DataRecipe&) const = default;
};
void describe(Visitor& v, DataRecipe& d);

struct ParallelRecipe {
  std::int64_t tensor = 1;
  std::int64_t expert = 1;
  std::int64_t expert_tensor = 1;
  bool sequence = false;
  std::int64_t zero = 0;
  std::string dispatcher = "all_to_all";  // all_to_all | all_gather: how tokens reach experts on other ranks
  std::int64_t dispatch_rows = 0;  // the most rows a rank receives from all_to_all at once; 0: no bound
  bool operator==(const ParallelRecipe&) const = default;
};
void describe(Visitor& v, ParallelRecipe& p);

struct BatchRampRecipe {
  std::int64_t start_batch_size = 0;  // 0: no ramp
  std::int64_t increment = 0;         // sequences added each time
  std::int64_t steps_per_increment = 0;
  bool operator==(const BatchRampRecipe&) const = default;
};
void describe(Visitor& v, BatchRampRecipe& b);

struct TrainingRecipe {
  std::int64_t global_batch_size = 32;
  std::int64_t micro_batch_size = 4;
  std::int64_t steps = 300;
  std::uint64_t seed = 1234;
  std::string device = "cpu";
  std::string precision = "fp32";  // fp32 | bf16 | fp64
  std::int64_t threads = 0;        // per rank; 0: the cores shared evenly over the ranks of the node
  std::string recompute = "none";  // none | block: recompute each block's activations in backward
  double lm_z_loss_coefficient = 0.0;
  std::int64_t skip_limit = 3;      // steps skipped in a row, after which the run goes back to a checkpoint
  std::int64_t rollback_limit = 2;  // how often it may; then it gives up
  std::int64_t replica_check_interval = 100;  // steps between comparisons of replicas; 0: never
  double watchdog_seconds = 600;              // without progress for so long, the job is ended; 0: off
  std::string time_limit = "0";               // seconds or a duration as in Slurm; 0: none
  BatchRampRecipe batch_ramp;
  bool operator==(const TrainingRecipe&) const = default;
};
void describe(Visitor& v, TrainingRecipe& t);

struct ScheduleRecipe {
  std::string kind = "cosine";  // constant | linear | cosine | wsd
  std::int64_t warmup_steps = 0;
  double min_lr_ratio = 0.1;
  std::int64_t decay_steps = 0;  // wsd: length of the final decay; 0: a tenth of the steps
  bool operator==(const ScheduleRecipe&) const = default;
};
void describe(Visitor& v, ScheduleRecipe& s);

/// Parameters whose name matches the pattern (* stands for any text) leave the defaults of the optimizer.
struct ParameterGroupRecipe {
  std::string pattern;
  double lr_scale = 1.0;
  double weight_decay = -1.0;  // below zero: the optimizer's
  bool frozen = false;
  bool operator==(const ParameterGroupRecipe&) const = default;
};
void describe(Visitor& v, ParameterGroupRecipe& g);

struct OptimizerRecipe {
  std::string kind = "adamw";
  double lr = 3.0e-3;
  std::vector<double> betas = {0.9, 0.95};
  double eps = 1.0e-8;
  double weight_decay = 0.1;  // decoupled; never on norms and biases
  double grad_clip = 1.0;     // global norm; 0: no clipping
  ScheduleRecipe schedule;
  std::vector<ParameterGroupRecipe> groups;  // the first match counts
  bool operator==(const OptimizerRecipe&) const = default;
};
void describe(Visitor& v, OptimizerRecipe& o);

struct CheckpointRecipe {
  std::int64_t interval = 100;  // steps; 0: only at the end
  std::int64_t keep = 3;        // newest checkpoints kept; 0: all
  bool resume = true;
  bool asynchronous = true;     // write while the next steps run
  std::string initialize_from;  // another run, for a run directory that has no checkpoint; empty: none
  std::vector<std::string> take = {"parameters"};  // of it: parameters, optimizer, data_position
  std::vector<std::string> accept_changes;         // keys that a resume may find changed
  bool operator==(const CheckpointRecipe&) const = default;
};
void describe(Visitor& v, CheckpointRecipe& c);

struct EvaluationRecipe {
  std::int64_t interval = 50;  // steps; 0: only at the end
  std::int64_t batches = 8;    // global batches per domain; 0: the whole validation text
  bool operator==(const EvaluationRecipe&) const = default;
};
void describe(Visitor& v, EvaluationRecipe& e);

struct LoggingRecipe {
  std::int64_t interval = 1;  // steps
  bool tensorboard = false;   // event files beside metrics.jsonl
  std::int64_t dead_expert_steps =
      100;               // without a token for so long, an expert is named in the log; 0: never
  bool profile = false;  // where the time of the steps goes, in profile.txt and trace.json
  bool samples = false;  // which training sequences each step took, in samples.jsonl
  bool operator==(const LoggingRecipe&) const = default;
};
void describe(Visitor& v, LoggingRecipe& l);

struct Recipe {
  std::string name = "run";
  ModelRecipe model;
  DataRecipe data;
  ParallelRecipe parallel;
  TrainingRecipe training;
  OptimizerRecipe optimizer;
  CheckpointRecipe checkpoint;
  EvaluationRecipe evaluation;
  LoggingRecipe logging;
  std::string output = "runs/run";
  KeyPlaces places;
  bool operator==(const Recipe&) const = default;
};
void describe(Visitor& v, Recipe& r);

}  // namespace conclave
