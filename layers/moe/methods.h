// Method: what a published method brings to the mixture of experts, at the seams where it may stand. Each is
// a file of layers/moe/methods/; methods.cpp lists them, and nothing else names one.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "layers/moe/load_scope.h"
#include "layers/moe/method_state.h"
#include "layers/moe/objective.h"
#include "layers/moe/recipe.h"
#include "layers/moe/routing_steps.h"
#include "parallel/parameter.h"

namespace conclave {

/// A function that a method does not need is null. Those that make something give null where the recipe does
/// not ask for it.
struct Method {
  /// Makes the scores of a layer's router, with parameters under `name`; at most one method may.
  std::unique_ptr<Scores> (*scores)(ParameterSet& parameters, const std::string& name,
                                    const ModelRecipe& model) = nullptr;
  /// Makes a mask of a layer's router; `name` tells the draws of layers apart. `states`: of the layer.
  std::unique_ptr<Mask> (*mask)(const MoeRecipe& moe, const std::string& name,
                                const MethodStates& states) = nullptr;
  /// Adds to how experts are chosen. `states`: of the layer.
  void (*choice)(const MoeRecipe& moe, const MethodStates& states, RouteRule& rule) = nullptr;
  /// Makes what stands between router and dispatcher.
  std::unique_ptr<Limit> (*limit)(const MoeRecipe& moe) = nullptr;
  /// Makes what is added to the loss, reported, or moved after a step.
  std::unique_ptr<Objective> (*objective)(const ObjectiveFacts& facts) = nullptr;

  /// The name in checkpoints of the state that its routers read; empty: they read none.
  std::string_view state = {};
  bool (*keeps_state)(const MoeRecipe& moe) = nullptr;
  /// The shape of a state that belongs to the whole model; null: it belongs to each expert of each layer.
  Shape (*shape_of_state)(const ModelRecipe& model) = nullptr;
  /// Learns its state from how often each token id stands in the training text. A run asks for it once,
  /// before its first step, and never where a checkpoint has the state.
  void (*learn_from_text)(const MoeRecipe& moe, const std::vector<std::int64_t>& count_of_id,
                          const Tensor& state) = nullptr;
  /// Says what to do where a checkpoint has this state and the recipe has none of it.
  std::string (*state_is_lost)(const std::string& checkpoint) = nullptr;

  /// Says why a token's experts depend on other tokens of its sequence, so that what was computed for a token
  /// does not hold when more tokens have come; "" where they do not.
  std::string (*looks_at_other_tokens)(const MoeRecipe& moe) = nullptr;
  /// Lets it act at every step that the recipe lets it act at all: a plan looks at the fullest step.
  void (*act_always)(MoeRecipe& moe) = nullptr;
  /// The micro-steps, each of so many sequences, after which what it counts together begins anew.
  std::int64_t (*period)(const MoeRecipe& moe, std::int64_t sequences) = nullptr;
};

const std::vector<Method>& methods();
/// The scopes that model.moe.balance may name.
const std::vector<LoadScopeKind>& load_scopes();

/// The states of a model, zero at first.
MethodStates make_states(const ModelRecipe& model, Device& device);
/// True where some state is to be learnt from the text and has not been.
bool wants_text(const MethodStates& states);
/// Learns such states. count_of_id [vocabulary]: of the whole training text.
void learn_from_text(const MoeRecipe& moe, const std::vector<std::int64_t>& count_of_id,
                     const MethodStates& states);
/// Refuses to lose a state, named as checkpoints name it, that these are not.
void check_keeps_state(const MethodStates& states, const std::string& name, const std::string& checkpoint);
/// Why a token's experts depend on other tokens of its sequence, by the first method of which that is true;
/// "" where each token is routed by itself.
std::string looks_at_other_tokens(const MoeRecipe& moe);
/// Every method at its fullest.
void act_always(MoeRecipe& moe);
/// Micro-steps of so many sequences after which all methods begin anew.
std::int64_t period_of_methods(const MoeRecipe& moe, std::int64_t sequences);

}  // namespace conclave
