#include "launch/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/autograd/ops/elementwise.h"
#include "framework/data/batch_ramp.h"
#include "framework/device/named_range.h"
#include "framework/tensor/host_copies.h"
#include "launch/train/recipe_text.h"
#include "optim/clipping.h"
#include "optim/schedule.h"

namespace conclave {

Trainer::Trainer(const Recipe& recipe, Mesh& mesh, BatchSource batches, Device& device,
                 const RouterMaker& router)
    : recipe_(recipe),
      mesh_(mesh),
      batches_(std::move(batches)),
      device_(device),
      model_(recipe, mesh, device, router),
      objectives_(recipe.model.moe, model_.transformer.routers(), mesh.axis(Axis::data_tensor),
                  &mesh.axis(Axis::tensor), recipe.training.seed, model_.feed_forwards.states()),
      reducer_(model_.parameters, mesh,
               {.sharding = recipe.parallel.zero > 0 ? OptimizerSharding::zero1 : OptimizerSharding::none,
                .owned_unit = owned_unit_of(recipe.optimizer)}),
      optimizer_(make_optimizer(model_.parameters, reducer_, recipe.optimizer)),
      clock_(mesh.world()) {}

namespace {

/// Where a micro-batch begins in the global batch: micro-step m of replica r holds the sequences from
/// position (m * replicas + r) * micro on.
std::int64_t first_sequence_of(std::int64_t micro_step, std::int64_t micro, const Communicator& data) {
  return (micro_step * data.size() + data.rank()) * micro;
}

}  // namespace

std::vector<Batch> Trainer::take_batches() const {
  const Communicator& data = mesh_.axis(Axis::data);
  const std::int64_t micro = recipe_.training.micro_batch_size;
  const std::int64_t replicas = data.size(), size = batch_size_at(recipe_.training, steps_done_);
  check(size % (micro * replicas) == 0, Fault::request, "step ", steps_done_, ": a global batch of ", size,
        " sequences does not divide into micro-batches of ", micro, " over ", replicas, " data ranks");
  std::vector<Batch> batches;
  for (std::int64_t m = 0; m < size / (micro * replicas); ++m)
    batches.push_back(batches_(steps_done_, first_sequence_of(m, micro, data), micro));
  return batches;
}

Trainer::Totals Trainer::agree_on_totals(const std::vector<Batch>& batches) {
  std::vector<std::int64_t> counts(2);
  for (const Batch& batch : batches) {
    counts[0] += batch.real_tokens();
    counts[1] += batch.target_tokens();
  }
  const Tensor totals = Tensor::from(counts, {2});
  mesh_.axis(Axis::data).all_reduce(totals, ReduceOp::sum, Purpose::statistics);
  counts = totals.to_host<std::int64_t>();
  return {counts[0], counts[1]};
}

void Trainer::count_experts(const std::vector<ModelInput>& inputs, Objectives::Step& objectives) {
  for (const ModelInput& input : inputs) {
    Tape tape(Tape::Mode::forward_only);
    objectives.count(model_.transformer.forward(tape, input).statistics);
  }
  objectives.finish_counting();
}

namespace {

bool is_finite(const Tensor& tensor) {
  const Tensor squares = Tensor::zeros({1}, DType::float64, tensor.device());
  kernels_of(tensor).sum_of_squares(tensor, squares, Write::overwrite);
  return std::isfinite(squares.item());
}

/// The smallest number of all ranks, where each names something or nothing (`none`).
std::int64_t first_of_all(Communicator& world, std::int64_t own) {
  const Tensor first = Tensor::from(std::vector<std::int64_t>{own}, {1});
  world.all_reduce(first, ReduceOp::minimum, Purpose::agreement);
  return first.to_host<std::int64_t>()[0];
}

}  // namespace

std::string Trainer::find_not_finite(const std::vector<ModelInput>& inputs, bool loss_is_finite) {
  constexpr std::int64_t none = std::numeric_limits<std::int64_t>::max();
  Communicator& world = mesh_.world();
  std::string found;
  if (!loss_is_finite) {
    // Numbered by micro-batch, layer and rank; every rank runs all of its micro-batches, as there are
    // collectives in each.
    const std::int64_t layers = recipe_.model.num_hidden_layers + 2, ranks = world.size();
    std::int64_t first = none;
    std::vector<std::string> names;
    for (std::size_t m = 0; m < inputs.size(); ++m) {
      Tape tape(Tape::Mode::forward_only);
      std::int64_t layer = 0;
      names.clear();
      model_.transformer.forward(tape, inputs[m], [&](const std::string& name, const Tensor& output) {
        if (first == none && !is_finite(output))
          first = (static_cast<std::int64_t>(m) * layers + layer) * ranks + world.rank();
        names.push_back(name);
        ++layer;
      });
    }
    first = first_of_all(world, first);
    found = first == none
                ? "every layer's output is finite, the loss is not"
                : join_text("the output of ", names[static_cast<std::size_t>(first / ranks % layers)],
                            " on rank ", first % ranks, " in micro-batch ", first / ranks / layers,
                            " is the first that is not finite");
  }
  const std::deque<Parameter>& parameters = model_.parameters.all();
  std::int64_t first = none;
  for (const OwnedSpan& span : reducer_.owned()) {
    if (is_finite(model_.parameters.gradients().part(span.offset, {span.elements}))) continue;
    std::int64_t place = 0;
    while (&parameters[static_cast<std::size_t>(place)] != span.parameter) ++place;
    first = std::min(first, place);
  }
  first = first_of_all(world, first);
  if (first != none)
    found += join_text(found.empty() ? "" : "; ", parameters[static_cast<std::size_t>(first)].name,
                       " is the first parameter whose gradient is not finite");
  return found;
}

Trainer::LossSums Trainer::run_micro_batches(const std::vector<ModelInput>& inputs, const Totals& totals,
                                             Objectives::Step& objectives) {
  const double per_target = 1.0 / static_cast<double>(totals.targets);
  const CrossEntropyOptions scales{.loss_scale = per_target,
                                   .z_scale = recipe_.training.lm_z_loss_coefficient * per_target};
  Device& device = model_.parameters.values().device();
  const Tensor sums = Tensor::zeros({3}, DType::float64, device);
  const auto add_to_sum = [&](std::int64_t index, const Tensor& loss) {
    kernels_of(sums).add_scaled(loss, 1.0, sums.slice(index, index + 1));
  };
  for (std::size_t m = 0; m < inputs.size(); ++m) {
    if (m + 1 == inputs.size()) reducer_.begin_last_micro_batch();
    clock_.begin(Activity::forward, steps_done_ + 1);
    std::optional<ProfilePhase> phase(Profile::Phase::forward);
    Tape tape;
    Transformer::Result result = model_.transformer.forward(tape, inputs[m]);
    Objectives::MicroStep routers =
        objectives.begin_micro_step(result.statistics);  // counts travel meanwhile
    const CrossEntropy cross_entropy = model_.transformer.loss(tape, result.hidden, inputs[m], scales);
    result.hidden = {};  // backward has no use for its value
    const Variable auxiliary = routers.objective(tape, device);
    const Variable objective = add_losses(tape, {cross_entropy.objective, auxiliary});
    // Of the tensor ranks, whose token losses are the same, one speaks; the auxiliary objective is each
    // rank's own.
    if (mesh_.axis(Axis::tensor).rank() == 0) {
      add_to_sum(0, cross_entropy.sums.slice(0, 1));
      add_to_sum(1, cross_entropy.objective.value);
    }
    add_to_sum(2, auxiliary.value);
    clock_.begin(Activity::backward, steps_done_ + 1);
    phase.emplace(Profile::Phase::backward);
    tape.backward(objective);
  }
  reducer_.finish();
  const HostCopies read({sums, reducer_.squares()});
  const std::vector<double> losses = read.of<double>(0);
  return {losses[0], losses[1], losses[2], read.of<double>(1)[0]};
}

void Trainer::update(const StepResult& result, Objectives::Step& objectives) {
  const NamedRange range("optimizer");
  optimizer_->step(result.learning_rate, clipping_factor(result.gradient_norm, recipe_.optimizer.grad_clip));
  reducer_.gather_values();
  objectives.keep();
}

Trainer::Agreed Trainer::agree_on_sums(std::vector<double> sums, const std::vector<double>& votes,
                                       const StopQuestion& wants_stop) {
  const auto own = static_cast<std::ptrdiff_t>(sums.size());
  sums.push_back(wants_stop && wants_stop() ? 1.0 : 0.0);
  sums.insert(sums.end(), votes.begin(), votes.end());
  const Tensor reduced = Tensor::from(sums, {static_cast<std::int64_t>(sums.size())});
  mesh_.world().all_reduce(reduced, ReduceOp::sum, Purpose::statistics);
  sums = reduced.to_host<double>();
  return {.sums = {sums.begin(), sums.begin() + own},
          .stop = sums[static_cast<std::size_t>(own)] > 0,
          .votes = {sums.begin() + own + 1, sums.end()}};
}

double Trainer::learning_rate() const {
  return recipe_.optimizer.lr *
         learning_rate_factor(recipe_.optimizer.schedule, steps_done_, recipe_.training.steps);
}

void Trainer::end_step(StepResult& result) {
  tokens_done_ += result.tokens;
  sequences_done_ += batch_size_at(recipe_.training, steps_done_);
  result.step = ++steps_done_;
  clock_.end_step();
}

StepResult Trainer::step_without_targets(const Totals& totals, const std::vector<double>& votes,
                                         const StopQuestion& wants_stop) {
  constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
  model_.parameters.clear_gradients();
  clock_.begin(Activity::optimizer, steps_done_ + 1);
  const Agreed agreed = agree_on_sums({}, votes, wants_stop);
  StepResult result{.tokens = totals.tokens,
                    .lm_loss = unknown,
                    .loss = unknown,
                    .gradient_norm = unknown,
                    .learning_rate = learning_rate(),
                    .no_targets = true,
                    .stop = agreed.stop,
                    .votes = agreed.votes,
                    .balance = objectives_.unknown()};
  end_step(result);
  return result;
}

StepResult Trainer::step(const std::vector<double>& votes, const StopQuestion& wants_stop) {
  clock_.begin(Activity::data, steps_done_ + 1);
  const std::vector<Batch> batches = take_batches();
  const Totals totals = agree_on_totals(batches);
  if (totals.targets == 0) return step_without_targets(totals, votes, wants_stop);  // equal on all ranks
  std::vector<ModelInput> inputs;
  const Communicator& data = mesh_.axis(Axis::data);
  for (const Batch& batch : batches) {
    const auto micro_step = static_cast<std::int64_t>(inputs.size());
    inputs.push_back(to_device(batch, device_));
    inputs.back().draws = {recipe_.training.seed, steps_done_,
                           first_sequence_of(micro_step, recipe_.training.micro_batch_size, data)};
  }
  model_.parameters.clear_gradients();
  Objectives::Step objectives =
      objectives_.begin_step(steps_done_, totals.tokens,
                             {.replica = data.rank(),
                              .replicas = data.size(),
                              .micro_batch_size = recipe_.training.micro_batch_size,
                              .micro_steps = static_cast<std::int64_t>(inputs.size()),
                              .sequence_length = recipe_.data.sequence_length});
  if (objectives.needs_counting_pass()) {
    clock_.begin(Activity::counting, steps_done_ + 1);
    count_experts(inputs, objectives);
  }
  const LossSums own = run_micro_batches(inputs, totals, objectives);

  clock_.begin(Activity::optimizer, steps_done_ + 1);
  const Agreed agreed = agree_on_sums({own.tokens, own.cross_entropy, own.auxiliary}, votes, wants_stop);

  StepResult result;
  result.tokens = totals.tokens;
  result.target_tokens = totals.targets;
  result.lm_loss = agreed.sums[0] / static_cast<double>(totals.targets);
  result.loss = agreed.sums[1] + agreed.sums[2];
  result.stop = agreed.stop;
  result.votes = agreed.votes;
  result.balance = objectives.end();
  result.gradient_norm = reducer_.norm_of(own.gradient_squares);
  result.learning_rate = learning_rate();
  // Both numbers are equal on all ranks, and so is what follows.
  result.skipped = !std::isfinite(result.loss) || !std::isfinite(result.gradient_norm);
  if (result.skipped) {
    result.not_finite = find_not_finite(inputs, std::isfinite(result.loss));
  } else {
    update(result, objectives);
  }
  end_step(result);
  return result;
}

std::vector<MethodState> Trainer::method_states() const {
  std::vector<MethodState> states;
  for (const MethodState* state : objectives_.states())
    if (state->values.defined()) states.push_back(*state);
  for (const MethodState& state : model_.feed_forwards.states().all) states.push_back(state);
  return states;
}

std::vector<RankPart> Trainer::parts(std::int64_t least_share_bytes) const {
  std::vector<RankPart> all = parts_of_values(model_.parameters, least_share_bytes);
  for (const NamedState& state : optimizer_->states())
    for (RankPart& part : parts_of_state(state, model_.parameters, reducer_, least_share_bytes))
      all.push_back(std::move(part));
  if (mesh_.world().rank() != 0) return all;
  for (const MethodState& state : method_states()) {
    const Dims dims = dims_of(state.shape);
    const std::int64_t elements = state.shape.elements();
    all.push_back({{state.name, ElementType::float64, dims, boxes_of_range(dims, 0, elements)},
                   Tensor::from(state.values.to_host<double>(), {elements})});
  }
  return all;
}

Attributes Trainer::attributes() const {
  Attributes attributes = own_attributes(steps_done_);
  attributes["tokens"] = tokens_done_;
  attributes["sequences"] = sequences_done_;
  attributes["sequences_skipped"] = sequences_skipped_;
  attributes["optimizer_updates"] = optimizer_->updates();
  attributes["recipe"] = to_yaml(recipe_);
  attributes["layout_ranks"] = static_cast<std::int64_t>(mesh_.world().size());
  attributes["layout_tensor"] = recipe_.parallel.tensor;
  attributes["layout_expert"] = recipe_.parallel.expert;
  attributes["layout_expert_tensor"] = recipe_.parallel.expert_tensor;
  attributes["layout_zero"] = recipe_.parallel.zero;
  if (more_attributes_) attributes.merge(more_attributes_(steps_done_));
  if (!source_.empty()) attributes[source_attribute] = source_;
  return attributes;
}

void Trainer::gather_gradients(const TensorSink& sink) const {
  const Tensor flat = model_.parameters.gradients().clone();
  reducer_.gather(flat);
  gather_tensors("gradient", model_.parameters, mesh_, flat, sink);
}

void Trainer::gather_values(const TensorSink& sink) const {
  gather_tensors("model", model_.parameters, mesh_, model_.parameters.values(), sink);
}

void Trainer::load(const CheckpointReader& checkpoint) {
  std::vector<TensorGroup> groups = {{"model", model_.parameters.values().dtype()}};
  add_optimizer_groups(checkpoint, groups);
  check_fits(checkpoint, groups, model_.parameters, &model_.shape);
  read_values(checkpoint, model_.parameters);
  read_source(checkpoint);
  read_optimizer(checkpoint);
  read_router_states(checkpoint, model_.feed_forwards.states());
  for (MethodState* state : objectives_.states()) read_state(checkpoint, *state);
  steps_done_ = checkpoint.step();
  tokens_done_ = checkpoint.integer("tokens");
  sequences_done_ = checkpoint.integer("sequences");
  sequences_skipped_ = checkpoint.integer("sequences_skipped");
}

void Trainer::read_source(const CheckpointReader& checkpoint) {
  source_ = checkpoint.has(source_attribute) ? checkpoint.text(source_attribute) : "";
}

void Trainer::add_optimizer_groups(const CheckpointReader& checkpoint,
                                   std::vector<TensorGroup>& groups) const {
  const std::vector<NamedState> states = optimizer_->states();
  check_optimizer(checkpoint, recipe_.optimizer.kind, states);
  for (const NamedState& state : states) groups.push_back({group_of(state), state.values.dtype()});
}

void Trainer::read_optimizer(const CheckpointReader& checkpoint) {
  for (const NamedState& state : optimizer_->states()) read_state(checkpoint, state, reducer_);
  optimizer_->set_updates(checkpoint.integer("optimizer_updates"));
}

void Trainer::take(const CheckpointReader& checkpoint, const std::vector<std::string>& things) {
  const auto wants = [&](const char* thing) {
    return std::find(things.begin(), things.end(), thing) != things.end();
  };
  std::vector<TensorGroup> groups;
  if (wants("parameters")) groups.push_back({"model", model_.parameters.values().dtype()});
  if (wants("optimizer")) add_optimizer_groups(checkpoint, groups);
  check_fits(checkpoint, groups, model_.parameters, &model_.shape);
  if (wants("parameters")) {
    read_values(checkpoint, model_.parameters);
    read_router_states(checkpoint, model_.feed_forwards.states());
    read_source(checkpoint);
  }
  if (wants("optimizer")) read_optimizer(checkpoint);
  if (wants("data_position"))
    sequences_skipped_ = checkpoint.integer("sequences") + checkpoint.integer("sequences_skipped");
}

}  // namespace conclave
