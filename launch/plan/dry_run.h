// A dry run: the real trainer takes a step as one rank of a job whose other ranks are not there. Its device
// only counts memory, and its kernels only say what they have to do. The needs of the step can then be read
// off, and no layer, optimizer, axis or precision needs a second description.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>

#include "framework/kernels/counting/counting_device.h"
#include "launch/train/trainer.h"

namespace conclave {

/// Names the kernels of one name at one place of the model.
struct PlaceOfWork {
  std::string layer;    // model.layers.0, lm_head, ...; empty outside of any
  std::string purpose;  // attention, experts, ...; empty outside of any
  bool backward = false;
  std::string kernel;
  auto operator<=>(const PlaceOfWork&) const = default;
};
struct AmountOfWork {
  double calls = 0, bytes = 0, operations = 0, exponentials = 0;
};

/// A DryStep is one rank's step, in bytes where nothing else is said.
struct DryStep {
  // The trainer holds these between steps; their sizes are those that were asked for.
  double parameters = 0, rounded_parameters = 0, gradients = 0, reduced_gradients = 0, moments = 0;
  double tables = 0, router_states = 0;      // as they were handed out
  double states = 0;                         // all of these, as they were handed out
  double peak = 0;                           // the most that was handed out at once during the step
  double snapshot = 0;                       // what the rank copies when it saves
  std::array<double, purposes> traffic{};    // bytes by Purpose
  std::map<Collective, double> collectives;  // calls
  std::map<PlaceOfWork, AmountOfWork> work;
};

/// A dry run may be given these parts in place of a recipe's own.
struct DryParts {
  Trainer::BatchSource batches = {};  // none: whole sequences of one document each
  RouterMaker router = make_router;
};
/// Takes a step of the recipe as this rank of `world`. Every balance term acts in it, and the batch is as
/// large as it becomes. Tokens go to experts as `choice` says, on all ranks alike.
DryStep dry_step(const Recipe& recipe, const std::shared_ptr<Communicator>& world, const ExpertChoice& choice,
                 DryParts parts = {});

}  // namespace conclave
