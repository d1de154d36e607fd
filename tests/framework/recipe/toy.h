// Structs with a key of every kind, which exist in tests alone: framework/recipe knows none of them.
#pragma once

#include <array>
#include <string>
#include <variant>
#include <vector>

#include "framework/base/error.h"
#include "framework/recipe/override.h"
#include "framework/recipe/requirements.h"
#include "framework/recipe/write.h"

namespace conclave::test {

enum class Wood { oak, ash, old_pine };
constexpr auto words_of(Wood) {
  return std::array{Word{Wood::oak, "oak"}, Word{Wood::ash, "ash"}, Word{Wood::old_pine, "old_pine"}};
}

struct Drawer {
  std::string label;
  double depth = 0.5;
  bool operator==(const Drawer&) const = default;
};
inline void describe(Visitor& v, Drawer& d) {
  v.key({"label", &d.label, "what is in it", filled_line()});
  v.key({"depth", &d.depth, "metres from front to back", above(0), {.other_names = {"length_of_drawer"}}});
}

struct PlainLegs {
  static constexpr const char* kind = "plain";
  bool operator==(const PlainLegs&) const = default;
};
inline void describe(Visitor&, PlainLegs&) {}

struct TurnedLegs {
  static constexpr const char* kind = "turned";
  std::int64_t rings = 3;
  double taper = 0.25;
  bool operator==(const TurnedLegs&) const = default;
};
inline void describe(Visitor& v, TurnedLegs& t) {
  v.key({"rings", &t.rings, "rings around each leg", size_or_zero()});
  v.key({"taper", &t.taper, "how much thinner a leg is at its foot", between(0, 1)});
}

struct SteelLegs {
  static constexpr const char* kind = "steel";
  double taper = 0;
  Drawer box;
  bool operator==(const SteelLegs&) const = default;
};
inline void describe(Visitor& v, SteelLegs& s) {
  v.key({"taper", &s.taper, "how much narrower a leg is at its foot", between(0, 1)});
  section(v, "box", s.box, "a box between the legs");
}

struct Polish {
  bool wax = true;
  std::int64_t coats = 2;
  bool operator==(const Polish&) const = default;
};
inline void describe(Visitor& v, Polish& p) {
  v.key({"wax", &p.wax, "wax rather than oil", {}});
  v.key({"coats", &p.coats, "how often it is put on", size(), {.gives_meaning_to = Saved::weights}});
}

struct Table {
  std::string name = "table";
  Wood wood = Wood::ash;
  std::int64_t height = 72;
  std::uint64_t number = 7;
  double weight = 1;
  bool folds = false;
  std::vector<double> sides = {1.0, 2.0};
  std::vector<std::string> makers = {"one"};
  Polish polish;
  std::vector<Drawer> drawers;
  std::variant<PlainLegs, TurnedLegs, SteelLegs> legs;
  KeyPlaces places;
  bool operator==(const Table&) const = default;
};
inline void describe(Visitor& v, Table& t) {
  v.key({"name", &t.name, "what it is called", filled_line()});
  v.key({"wood", &t.wood, "what it is made of", {}, {.gives_meaning_to = Saved::counts}});
  v.key({"height", &t.height, "centimetres", between(40, 120), {.other_names = {"tallness"}}});
  v.key({"number", &t.number, "its number", {}});
  v.key({"weight", &t.weight, "kilogrammes; heavy: beyond measure", {.least = 0, .infinity_word = "heavy"}});
  v.key({"folds", &t.folds, "it can be folded", {}});
  v.key({"sides", &t.sides, "metres", above(0)});
  v.key({"makers", &t.makers, "who made it", {.filled = true, .words = {"one", "two"}}});
  section(v, "polish", t.polish, "its surface");
  list(v, "drawers", t.drawers, "from left to right");
  choice(v, "legs", t.legs, "what it stands on");
}

inline const Schema& table_schema() {
  static const Schema schema = [] {
    Table defaults;
    return Schema(SectionReference(defaults), "height=80");
  }();
  return schema;
}

inline Table read_table(const std::string& text, const std::vector<std::string>& overrides = {}) {
  Table table;
  const ReadTarget target{SectionReference(table), table_schema(), table.places};
  read_text(target, text, "table.yaml");
  for (const std::string& change : overrides) apply_override(target, change);
  return table;
}

inline std::string yaml_of(Table table) {
  return to_yaml(SectionReference(table));
}

inline std::string annotated_yaml_of(Table table) {
  Table defaults;
  return to_annotated_yaml(SectionReference(table), SectionReference(defaults));
}

/// The complaint of the action, or "" where there is none. Only Fault::request counts as a complaint.
template <class Action>
std::string complaint_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.fault() == Fault::request ? error.what() : std::string("wrong fault: ") + error.what();
  }
  return "";
}

}  // namespace conclave::test
