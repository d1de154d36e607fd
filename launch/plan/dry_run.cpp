#include "launch/plan/dry_run.h"

#include <algorithm>
#include <cmath>

#include "framework/base/allocation_size.h"
#include "framework/device/profile.h"
#include "layers/moe/methods.h"

namespace conclave {
namespace {

template <class T>
double real(T number) {
  return static_cast<double>(number);
}

/// Whole sequences of one document each, without padding.
Batch full_batch(const Recipe& recipe, std::int64_t sequences) {
  const std::int64_t length = recipe.data.sequence_length;
  Batch batch;
  batch.sequences = sequences;
  batch.length = length;
  const auto tokens = static_cast<std::size_t>(sequences * length);
  batch.tokens.resize(tokens);
  for (std::size_t i = 0; i < tokens; ++i)
    batch.tokens[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) % recipe.model.vocab_size);
  batch.targets = batch.tokens;
  batch.document_start.assign(tokens, 0);
  batch.domain.assign(static_cast<std::size_t>(sequences), 0);
  return batch;
}

/// The recipe at its fullest: no ramp, and every term that acts at some step acts at this one.
Recipe at_full_size(Recipe recipe) {
  recipe.training.batch_ramp = {};
  act_always(recipe.model.moe);
  return recipe;
}

void read_states(const Recipe& recipe, const Trainer& trainer, const CountingDevice& device, DryStep& step) {
  const ParameterSet& parameters = trainer.model().parameters;
  step.parameters = real(parameters.values().bytes());
  step.rounded_parameters = real(device.asked_for(MemoryPurpose::parameters)) - step.parameters;
  step.gradients = real(parameters.gradients().bytes());
  step.reduced_gradients = real(device.asked_for(MemoryPurpose::gradients)) - step.gradients;
  step.moments = real(device.asked_for(MemoryPurpose::optimizer));
  for (const MethodState& state : trainer.model().feed_forwards.states().all)
    step.router_states += real(allocation_size(state.values.bytes()));
  const MemoryUse use = device.memory_use();
  step.tables = real(use[MemoryPurpose::activations].live) - step.router_states;
  step.states = real(use.live);
  // Values and what the optimizer keeps of each, shared out over the ranks that hold the same part.
  double held = 0, owned = 0;
  for (const Parameter& parameter : parameters.all()) {
    const double bytes = real(parameter.shape.elements()) * real(element_bytes(parameters.values().dtype()));
    const double share = bytes / real(parameters.layout().degree(parameter.placement.replicas));
    held += share;
    owned += recipe.parallel.zero > 0 ? share : bytes;
  }
  step.snapshot = held * (1 + std::round(step.moments / owned));
}

void read_work(const Profile& profile, DryStep& step) {
  for (const auto& [key, sum] : profile.sums()) {
    if (key.kind != Profile::Kind::kernel) continue;
    AmountOfWork& work =
        step.work[{profile.layers()[static_cast<std::size_t>(key.place.layer)], key.place.purpose,
                   key.phase == Profile::Phase::backward, std::string(key.what)}];
    work.calls += static_cast<double>(sum.calls);
    work.bytes += sum.bytes;
    work.operations += sum.operations;
    work.exponentials += sum.exponentials;
  }
}

}  // namespace

DryStep dry_step(const Recipe& recipe, const std::shared_ptr<Communicator>& world, const ExpertChoice& choice,
                 DryParts parts) {
  const Recipe full = at_full_size(recipe);
  const ParallelRecipe& p = full.parallel;
  CountingDevice device({.choice = choice, .threads = std::max<std::int64_t>(full.training.threads, 1)});
  DryStep step;
  const auto log = std::make_shared<CollectiveLog>();
  Mesh mesh(world, degrees_of(p));
  if (!parts.batches)
    parts.batches = [&full](std::int64_t, std::int64_t, std::int64_t count) {
      return full_batch(full, count);
    };
  Trainer trainer(full, mesh, std::move(parts.batches), device, parts.router);
  read_states(full, trainer, device, step);
  device.reset_peak();
  const TrafficTable before = world->traffic();
  world->keep_log(log);
  Profile profile;
  {
    const Profile::Recording recording(profile);
    trainer.step({0.0});  // with the vote of a save, as training has it
  }
  world->keep_log(nullptr);
  step.peak = real(device.memory_use().peak);
  const TrafficTable traffic = world->traffic().since(before);
  for (int purpose = 0; purpose < purposes; ++purpose)
    step.traffic[static_cast<std::size_t>(purpose)] =
        static_cast<double>(traffic[static_cast<Purpose>(purpose)].bytes);
  for (const auto& [collective, calls] : *log) step.collectives[collective] = static_cast<double>(calls);
  read_work(profile, step);
  return step;
}

}  // namespace conclave
