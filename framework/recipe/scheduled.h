// Scheduled: a number of a recipe that may move over the steps of a run. In YAML it is a plain number, or
//
//   {kind: linear, from: 8, to: 16, first_step: 100, last_step: 900, evaluation: 16}
//
// Its value is a pure function of the step, so a run that goes on needs no state of it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "framework/base/words.h"
#include "framework/recipe/requirements.h"
#include "framework/recipe/visitor.h"

namespace conclave {

/// Course says how a number gets from one value to another. With `linear` it moves evenly, with `cosine`
/// along half a cosine, slow at both ends. With `steps` it goes through every whole number on the way, each
/// for as long as the others.
enum class Course { linear, cosine, steps };
constexpr auto words_of(Course) {
  return std::array{Word{Course::linear, "linear"}, Word{Course::cosine, "cosine"},
                    Word{Course::steps, "steps"}};
}

template <class Number>
struct Scheduled {
  static_assert(std::is_same_v<Number, double> || std::is_same_v<Number, std::int64_t>);

  Number value{};      // where it does not move
  bool moves = false;  // else it has this course:
  Course kind = Course::linear;
  Number from{}, to{};  // before and in first_step; in last_step and after it
  std::int64_t first_step = 0, last_step = 0;
  double evaluation =
      std::numeric_limits<double>::infinity();  // infinity, written `training`: as in training

  constexpr Scheduled() = default;
  constexpr Scheduled(Number plain) : value(plain), from(plain), to(plain) {}

  /// The value in training, at a 0-based step.
  Number at(std::int64_t step) const {
    if (!moves) return value;
    if (step >= last_step) return to;
    if (step <= first_step) return from;
    if (kind == Course::steps) {
      const double sign = to < from ? -1 : 1;
      const auto jumps =
          static_cast<std::int64_t>(std::abs(static_cast<double>(to) - static_cast<double>(from)));
      const std::int64_t done = (step - first_step) * (jumps + 1) / (last_step - first_step + 1);
      return static_cast<Number>(static_cast<double>(from) + sign * static_cast<double>(done));
    }
    double progress = static_cast<double>(step - first_step) / static_cast<double>(last_step - first_step);
    if (kind == Course::cosine) progress = 0.5 * (1 - std::cos(3.14159265358979323846 * progress));
    const double between =
        static_cast<double>(from) + progress * (static_cast<double>(to) - static_cast<double>(from));
    if constexpr (std::is_same_v<Number, double>)
      return between;
    else
      return std::llround(between);
  }

  /// The value outside of training, after so many steps.
  Number in_evaluation(std::int64_t step) const {
    return moves && std::isfinite(evaluation) ? static_cast<Number>(evaluation) : at(step);
  }

  /// The largest value over all steps and evaluations; memory must be there for it.
  Number largest() const {
    if (!moves) return value;
    const Number most = std::max(from, to);
    return std::isfinite(evaluation) ? std::max(most, static_cast<Number>(evaluation)) : most;
  }

  bool operator==(const Scheduled& other) const {
    if (!moves || !other.moves) return moves == other.moves && value == other.value;
    return kind == other.kind && from == other.from && to == other.to && first_step == other.first_step &&
           last_step == other.last_step && evaluation == other.evaluation;
  }
};

template <class Number>
class ScheduledReference final : public ScheduleReference {
 public:
  ScheduledReference(Scheduled<Number>& number, Rule rule) : number_(number), rule_(std::move(rule)) {}
  bool moves() const override { return number_.moves; }
  void set_moves(bool moves) override {
    number_ = Scheduled<Number>(number_.value);
    number_.moves = moves;
  }
  void describe_course(Visitor& v) override {
    v.key({"kind", &number_.kind, "how it moves: linear, cosine or steps, through every whole number"});
    v.key({"from", &number_.from, "its value up to first_step", rule_});
    v.key({"to", &number_.to, "its value from last_step on", rule_});
    v.key({"first_step", &number_.first_step, "it begins to move here, the first step being 0",
           count_or_zero()});
    v.key({"last_step", &number_.last_step, "it has arrived here", count_or_zero()});
    Rule of_evaluation = rule_;
    of_evaluation.infinity_word = "training";
    v.key({"evaluation", &number_.evaluation, "its value outside of training; training: as in training",
           std::move(of_evaluation)});
  }

 private:
  Scheduled<Number>& number_;
  Rule rule_;
};

/// The key of a number that may move. The rule holds for every value that it takes.
template <class Number>
void scheduled(Visitor& visitor, const char* name, Scheduled<Number>& number, const char* meaning, Rule rule,
               KeyFacts facts = {}) {
  ScheduledReference<Number> reference(number, rule);
  visitor.scheduled({name, &number.value, meaning, std::move(rule), std::move(facts)}, reference);
}

/// Checks what the keys of a course mean together.
template <class Number>
void require_possible(const Requirements& r, const Scheduled<Number>& number, const std::string& key) {
  if (!number.moves) return;
  r.require(number.last_step >= number.first_step, key + ".last_step", number.last_step,
            " lies before first_step: ", number.first_step, "; expected that step or a later one");
  const double way = static_cast<double>(number.to) - static_cast<double>(number.from);
  r.require(number.kind != Course::steps || way == std::trunc(way), key + ".kind", "steps came, but from ",
            number.from, " to ", number.to, " is no whole number of them; expected linear or cosine");
  r.require(std::is_same_v<Number, double> || !std::isfinite(number.evaluation) ||
                number.evaluation == std::trunc(number.evaluation),
            key + ".evaluation", number.evaluation, " came, expected a whole number");
}

}  // namespace conclave
