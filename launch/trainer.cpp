#include "launch/trainer.h"

#include <cmath>
#include <limits>

#include "framework/autograd/ops/elementwise.h"
#include "framework/recipe/write.h"
#include "launch/stop_signals.h"
#include "layers/selection_bias.h"
#include "optim/schedule.h"

namespace conclave {

Trainer::Trainer(const Recipe& recipe, Mesh& mesh, BatchSource batches)
    : recipe_(recipe),
      mesh_(mesh),
      batches_(std::move(batches)),
      model_(recipe, mesh),
      balance_(recipe.model.moe, model_.transformer.moe_layers(), mesh.axis(Axis::data_tensor),
               &mesh.axis(Axis::tensor), recipe.training.seed),
      reducer_(model_.parameters, mesh,
               {.sharding = recipe.parallel.zero > 0 ? OptimizerSharding::zero1 : OptimizerSharding::none}),
      optimizer_(model_.parameters, reducer_, recipe.optimizer),
      clock_(mesh.world()) {}

std::vector<Batch> Trainer::take_batches() const {
  const Communicator& data = mesh_.axis(Axis::data);
  const std::int64_t micro = recipe_.training.micro_batch_size;
  const std::int64_t replicas = data.size(), size = batch_size_at(recipe_.training, steps_done_);
  check(size % (micro * replicas) == 0, Fault::request, "step ", steps_done_, ": a global batch of ", size,
        " sequences does not divide into micro-batches of ", micro, " over ", replicas, " data ranks");
  std::vector<Batch> batches;
  // Micro-step m of replica r holds the sequences from position (m * replicas + r) * micro of the global
  // batch.
  for (std::int64_t m = 0; m < size / (micro * replicas); ++m)
    batches.push_back(batches_(steps_done_, (m * replicas + data.rank()) * micro, micro));
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
  if (counts[1] == 0)
    throw Error(Fault::data, join_text("step ", steps_done_, ": the global batch holds no target token"),
                Reach::all_ranks);
  return {counts[0], counts[1]};
}

void Trainer::count_experts(const std::vector<ModelInput>& inputs) {
  for (const ModelInput& input : inputs) {
    Tape tape(Tape::Mode::forward_only);
    balance_.count(model_.transformer.forward(tape, input).statistics);
  }
  balance_.finish_counting();
}

namespace {

bool is_finite(const Tensor& tensor) {
  return tensor.elements() == 0 || std::isfinite(kernels_of(tensor).sum_of_squares(tensor));
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

StepResult Trainer::step() {
  clock_.begin(Activity::data, steps_done_ + 1);
  std::vector<ModelInput> inputs;
  Totals totals{};
  {
    const std::vector<Batch> batches = take_batches();
    totals = agree_on_totals(batches);
    for (const Batch& batch : batches) inputs.push_back(to_device(batch));
  }
  model_.parameters.clear_gradients();
  const Communicator& data = mesh_.axis(Axis::data);
  balance_.begin_step(steps_done_, totals.tokens,
                      {.replica = data.rank(),
                       .replicas = data.size(),
                       .micro_batch_size = recipe_.training.micro_batch_size,
                       .micro_steps = static_cast<std::int64_t>(inputs.size()),
                       .sequence_length = recipe_.data.sequence_length});
  const std::vector<double> previous_fractions = balance_.previous_fractions();
  if (balance_.needs_counting_pass()) {
    clock_.begin(Activity::counting, steps_done_ + 1);
    count_experts(inputs);
  }

  const double per_target = 1.0 / static_cast<double>(totals.targets);
  const CrossEntropyOptions scales{.loss_scale = per_target,
                                   .z_scale = recipe_.training.lm_z_loss_coefficient * per_target};
  // Token losses and their objective are the same on all tensor ranks; the auxiliary objective is each rank's
  // own.
  std::vector<double> sums(
      4);  // token losses, cross-entropy objective, auxiliary objective, ranks asked to stop
  for (std::size_t m = 0; m < inputs.size(); ++m) {
    if (m + 1 == inputs.size()) reducer_.begin_last_micro_batch();
    clock_.begin(Activity::forward, steps_done_ + 1);
    Tape tape;
    Transformer::Result result = model_.transformer.forward(tape, inputs[m]);
    balance_.begin_micro_step(result.statistics);  // the counts travel beside the LM head
    const CrossEntropy cross_entropy = model_.transformer.loss(tape, result.hidden, inputs[m], scales);
    result.hidden = {};  // backward has no use for its value
    const Variable auxiliary = balance_.objective(tape);
    const Variable objective = add_losses(tape, {cross_entropy.objective, auxiliary});
    if (mesh_.axis(Axis::tensor).rank() == 0) {
      sums[0] += cross_entropy.loss_sum;
      sums[1] += cross_entropy.objective.value.item();
    }
    sums[2] += auxiliary.value.item();
    clock_.begin(Activity::backward, steps_done_ + 1);
    tape.backward(objective);
  }
  reducer_.finish();

  clock_.begin(Activity::optimizer, steps_done_ + 1);
  sums[3] = stop_was_requested() ? 1 : 0;
  const Tensor reduced = Tensor::from(sums, {4});
  mesh_.world().all_reduce(reduced, ReduceOp::sum, Purpose::statistics);
  sums = reduced.to_host<double>();

  StepResult result;
  result.tokens = totals.tokens;
  result.target_tokens = totals.targets;
  result.lm_loss = sums[0] * per_target;
  result.loss = sums[1] + sums[2];
  result.stop = sums[3] > 0;
  result.balance = balance_.end_step();
  result.gradient_norm = reducer_.gradient_norm();
  result.learning_rate = recipe_.optimizer.lr * learning_rate_factor(recipe_.optimizer.schedule, steps_done_,
                                                                     recipe_.training.steps);
  // Both numbers are equal on all ranks, and so is what follows.
  result.skipped = !std::isfinite(result.loss) || !std::isfinite(result.gradient_norm);
  if (result.skipped) {
    result.not_finite = find_not_finite(inputs, std::isfinite(result.loss));
    balance_.set_previous_fractions(previous_fractions);
  } else {
    const double clip = recipe_.optimizer.grad_clip;
    optimizer_.step(result.learning_rate,
                    clip > 0 && result.gradient_norm > clip ? clip / result.gradient_norm : 1.0);
    reducer_.gather_values();
    if (!result.balance.load_signs.empty())
      move_selection_bias(model_.transformer.selection_bias(), result.balance.load_signs,
                          recipe_.model.moe.router.bias);
  }
  tokens_done_ += totals.tokens;
  result.step = ++steps_done_;
  clock_.end_step();
  return result;
}

std::optional<Error> Trainer::save(CheckpointWriter* checkpoint) const {
  std::optional<Error> failure;
  const auto write = [&](const std::function<void()>& action) {
    if (checkpoint == nullptr || failure) return;
    try {
      action();
    } catch (const Error& error) {
      failure = error;
    }
  };
  write([&] {
    checkpoint->set("tokens", tokens_done_);
    checkpoint->set("optimizer_updates", optimizer_.updates());
    checkpoint->set("recipe", to_yaml(recipe_));
    const std::vector<double>& fractions = balance_.previous_fractions();
    if (!fractions.empty())
      checkpoint->add("state/previous_fractions",
                      {model_.transformer.moe_layers(), recipe_.model.moe.num_experts}, fractions.data());
    if (const Tensor& bias = model_.transformer.selection_bias(); bias.defined())
      add_tensor(*checkpoint, selection_bias_name, bias);
  });
  const TensorSink sink = [&](const std::string& name, const Tensor& whole) {
    write([&] { add_tensor(*checkpoint, name, whole); });
  };
  const ParameterSet& parameters = model_.parameters;
  gather_tensors("model", parameters, mesh_, parameters.values(), sink);
  gather_tensors("optimizer/moment1", parameters, mesh_, everybodys(optimizer_.moment1()), sink);
  gather_tensors("optimizer/moment2", parameters, mesh_, everybodys(optimizer_.moment2()), sink);
  return failure;
}

void Trainer::gather_gradients(const TensorSink& sink) const {
  const Tensor flat = model_.parameters.gradients().clone();
  reducer_.gather(flat);
  gather_tensors("gradient", model_.parameters, mesh_, flat, sink);
}

void Trainer::gather_values(const TensorSink& sink) const {
  gather_tensors("model", model_.parameters, mesh_, model_.parameters.values(), sink);
}

Tensor Trainer::everybodys(const Tensor& moments) const {
  const Tensor flat = Tensor::zeros({model_.parameters.elements()}, moments.dtype(), moments.device());
  for (const OwnedSpan& span : reducer_.owned())
    flat.part(span.offset, {span.elements}).copy_from(moments.part(span.state_offset, {span.elements}));
  reducer_.gather(flat);
  return flat;
}

void Trainer::load(const CheckpointReader& checkpoint) {
  load_model(checkpoint, model_);
  for (const auto& [group, moments] : {std::pair{"optimizer/moment1", optimizer_.moment1()},
                                       std::pair{"optimizer/moment2", optimizer_.moment2()}}) {
    const Tensor flat = Tensor::zeros({model_.parameters.elements()}, moments.dtype(), moments.device());
    read_tensors(checkpoint, group, model_.parameters, flat);
    for (const OwnedSpan& span : reducer_.owned())
      moments.part(span.state_offset, {span.elements}).copy_from(flat.part(span.offset, {span.elements}));
  }
  optimizer_.set_updates(checkpoint.integer("optimizer_updates"));
  if (checkpoint.contains("state/previous_fractions"))
    balance_.set_previous_fractions(checkpoint.read_all<double>("state/previous_fractions"));
  steps_done_ = checkpoint.step();
  tokens_done_ = checkpoint.integer("tokens");
}

}  // namespace conclave
