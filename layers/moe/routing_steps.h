// The steps of routing, between which a method may stand: scores, masks, selection and weights make a
// Routing; limits take assignments out of it again. Scores and weights alone have gradients.
#pragma once

#include "framework/autograd/ops/routing.h"
#include "layers/model_input.h"
#include "parallel/communicator.h"

namespace conclave {

/// The tokens at hand, as a layer's router sees them.
struct RouterInput {
  Variable x;                 // [tokens, hidden]; this rank's tokens
  const ModelInput& input;    // of these tokens
  Communicator& micro_batch;  // the ranks that hold even shares of the micro-batch, in order
};

/// The options that every routing op takes, for the tokens at hand.
inline RouteOptions route_options(const ModelInput& input, std::int64_t top_k, const RouteRule& rule = {}) {
  return {.top_k = top_k,
          .rule = rule,
          .sequences = input.sequences,
          .length = input.length,
          .first_token = input.first_token};
}

/// Scores and what goes with them.
struct Scored {
  Variable logits;   // [tokens, experts]
  Variable counted;  // those that statistics are of, where they differ
  std::vector<NamedNumber> numbers;
};

/// How well each expert suits a token.
class Scores {
 public:
  virtual ~Scores() = default;
  /// Logits [tokens, experts].
  virtual Variable of(Tape& tape, const RouterInput& input) const = 0;
  /// The same with more, for scores that have more to say.
  virtual Scored scored(Tape& tape, const RouterInput& input) const { return {of(tape, input), {}, {}}; }
};

/// Takes experts out of the running for some tokens.
class Mask {
 public:
  virtual ~Mask() = default;
  /// Sets logits [tokens, experts] to -infinity, in place. Masks follow one another: each sees what those
  /// before it left. Collective over input.micro_batch where documents or sequences lie across ranks.
  virtual void close(const RouterInput& input, const Tensor& logits) const = 0;
};

/// Which experts a token goes to.
class Selection {
 public:
  virtual ~Selection() = default;
  /// The most experts of a token.
  virtual std::int64_t slots() const = 0;
  /// int32 [tokens, slots]; -1 for an unused slot, of which a real token's first is none, and for padding.
  virtual Tensor choose(const Tensor& logits, const RouterInput& input) const = 0;
  /// The choice, weighed as the rule says. A selection that a kernel makes together with the weights says so
  /// here.
  virtual Routing route(Tape& tape, const Variable& logits, const RouterInput& input,
                        const RouteRule& rule) const {
    return weigh(tape, logits, input.input.tokens, choose(logits.value, input),
                 route_options(input.input, slots(), rule));
  }
};

/// Takes assignments back, between router and dispatcher.
class Limit {
 public:
  virtual ~Limit() = default;
  /// `routing` with -1 for what is taken back. Its statistics stay those of the router, plus `others`.
  virtual Routing limit(const Routing& routing, const RouterInput& input) const = 0;
};

}  // namespace conclave
