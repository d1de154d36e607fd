// The machinery of keys, on structs that it has never seen: reading, overrides, writing, suggestions,
// completion, rules and changes all follow from one describe().
#include <gtest/gtest.h>

#include <algorithm>

#include "framework/recipe/changes.h"
#include "tests/framework/recipe/toy.h"

namespace conclave::test {
namespace {

const std::string text =
    "name: desk\n"
    "wood: old_pine\n"
    "height: 80\n"
    "number: 18446744073709551615\n"
    "weight: heavy\n"
    "folds: true\n"
    "sides: [0.5, 1.5]\n"
    "makers: [two, one]\n"
    "polish: {wax: false}\n"
    "drawers:\n"
    "  - {label: pens}\n"
    "  - {label: paper, depth: 0.25}\n"
    "legs: {kind: turned, rings: 5}\n";

Table desk() {
  Table table{.name = "desk",
              .wood = Wood::old_pine,
              .height = 80,
              .number = 18446744073709551615u,
              .weight = std::numeric_limits<double>::infinity(),
              .folds = true,
              .sides = {0.5, 1.5},
              .makers = {"two", "one"},
              .polish = {.wax = false},
              .drawers = {{"pens"}, {"paper", 0.25}}};
  table.legs = TurnedLegs{.rings = 5};
  return table;
}

TEST(Keys, OfEveryKindAreRead) {
  const Table table = read_table(text);
  EXPECT_EQ(table, desk());
  EXPECT_EQ(read_table(""), Table());
  EXPECT_EQ(table.places.of("wood"), "table.yaml:2: ");
  EXPECT_EQ(table.places.of("drawers.1.depth"), "table.yaml:12: ");
  EXPECT_EQ(table.places.of("legs.rings"), "table.yaml:13: ");
  EXPECT_EQ(table.places.of("polish.coats"), "");
}

TEST(Keys, AreWrittenSoThatTheyReadBack) {
  EXPECT_EQ(yaml_of(Table()),
            "name: table\nwood: ash\nheight: 72\n"
            "number: 7\nweight: 1\nfolds: false\nsides: [1, 2]\n"
            "makers: [one]\npolish:\n  wax: true\n  coats: 2\ndrawers: []\nlegs: plain\n");
  for (const Table& table : {Table(), desk()}) {
    EXPECT_EQ(read_table(yaml_of(table)), table);
    EXPECT_EQ(read_table(annotated_yaml_of(table)), table);
  }
  const std::string annotated = annotated_yaml_of(desk());
  for (const char* part : {"\nwood: old_pine                # what it is made of [ash]\n",
                           "# kilogrammes; heavy: beyond measure [1]\n",
                           "\n  coats: 2                    # how often it is put on [2]\n"})
    EXPECT_NE(annotated.find(part), std::string::npos) << part << " is missing from\n" << annotated;
  EXPECT_NE(annotated_yaml_of({}).find("\n# - label: \"\"   # what is in it\n#   depth: 0.5  # metres"),
            std::string::npos)
      << annotated_yaml_of({});
}

TEST(Keys, SayWhatIsWrongAndWhere) {
  const std::vector<std::pair<const char*, const char*>> table = {
      {"a: 1\nb: 2",
       "table.yaml:1: a: there is no such key; the keys of a recipe are name, wood, height, number, "
       "weight, folds, sides, makers, polish, drawers, legs"},
      {"heighh: 3", "table.yaml:1: heighh: there is no such key; did you mean height?"},
      {"\ntallness: 3", "table.yaml:2: tallness: there is no such key; did you mean height?"},
      {"coats: 3", "table.yaml:1: coats: there is no such key; did you mean polish.coats?"},
      {"polish: {length_of_drawer: 1}",
       "table.yaml:1: polish.length_of_drawer: there is no such key; did you mean drawers.0.depth?"},
      {"wood: oka",
       "table.yaml:1: wood: 'oka' came, expected one of oak, ash, old_pine; did you mean 'oak'?"},
      {"wood: stone", "table.yaml:1: wood: 'stone' came, expected one of oak, ash, old_pine"},
      {"wood: [oak]", "table.yaml:1: wood: a list came, expected a text"},
      {"height: 39", "table.yaml:1: height: 39 came, expected at least 40 and at most 120"},
      {"height: tall", "table.yaml:1: height: 'tall' came, expected a whole number"},
      {"makers: [three]", "table.yaml:1: makers: 'three' came, expected one of one, two"},
      {"drawers: [{depth: 0}]", "table.yaml:1: drawers.0.depth: 0 came, expected more than 0"},
  };
  for (const auto& [bad, sentence] : table) EXPECT_EQ(complaint_of([&] { read_table(bad); }), sentence);
  EXPECT_EQ(complaint_of([] { read_table("", {"height"}); }),
            "override 'height': expected key.path=value, for example height=80");
}

TEST(Keys, AWordThatIsRefusedChangesNothing) {
  Table table;
  const ReadTarget target{SectionReference(table), table_schema(), table.places};
  EXPECT_NE(complaint_of([&] { apply_override(target, "wood=birch"); }), "");
  EXPECT_EQ(table.wood, Wood::ash);
  apply_override(target, "wood=old_pine");
  EXPECT_EQ(table.wood, Wood::old_pine);
}

TEST(Keys, AreCompletedAndFound) {
  EXPECT_EQ(table_schema().completions("w"), (std::vector<std::string>{"wood=", "weight="}));
  EXPECT_EQ(table_schema().completions("wood=o"), (std::vector<std::string>{"wood=oak", "wood=old_pine"}));
  EXPECT_EQ(table_schema().completions("weight="), std::vector<std::string>{"weight=heavy"});
  EXPECT_EQ(table_schema().completions("polish."),
            (std::vector<std::string>{"polish.wax=", "polish.coats="}));
  EXPECT_TRUE(table_schema().is_key("drawers.17.depth"));
  EXPECT_FALSE(table_schema().is_key("drawers.17.width"));
  EXPECT_TRUE(table_schema().is_list("drawers"));
  Table table = desk();
  EXPECT_EQ(key_text(SectionReference(table), table_schema(), "wood"), "old_pine");
  EXPECT_EQ(key_text(SectionReference(table), table_schema(), "drawers.1.label"), "paper");
}

TEST(Keys, SayWhatTheyGiveItsMeaning) {
  EXPECT_EQ(table_schema().keys_that_give_meaning_to(Saved::weights),
            std::vector<std::string>{"polish.coats"});
  EXPECT_EQ(table_schema().meaning_given_by("wood"), Saved::counts);
  EXPECT_EQ(table_schema().meaning_given_by("height"), Saved::nothing);
  EXPECT_EQ(table_schema().meaning_given_by("nothing"), Saved::nothing);
}

TEST(Keys, AreComparedOneByOne) {
  Table before, after = desk();
  std::vector<std::string> texts;
  for (const KeyChange& change : changes_between(SectionReference(before), SectionReference(after)))
    texts.push_back(change.key + ": " + change_text(change));
  EXPECT_EQ(texts[1], "wood: ash -> old_pine");
  EXPECT_EQ(texts.back(), "legs: plain -> none");
  EXPECT_EQ(std::count(texts.begin(), texts.end(), "drawers.1.label: none -> paper"), 1);
}

TEST(Keys, OfObjectsThatWereBuiltInCodeAreHeldToTheirRules) {
  Table table;
  const Requirements requirements(table.places);
  EXPECT_EQ(complaint_of([&] { requirements.require_rules(SectionReference(table)); }), "");
  table.drawers.resize(1);
  EXPECT_EQ(complaint_of([&] { requirements.require_rules(SectionReference(table)); }),
            "drawers.0.label: this key is missing; a text is expected");
  table = read_table("drawers: [{label: a}]");
  table.drawers[0].depth = -1;
  EXPECT_EQ(complaint_of([&] { requirements.require_rules(SectionReference(table)); }),
            "table.yaml:1: drawers.0.depth: -1 came, expected more than 0");
  table.drawers[0].depth = 1;
  table.wood = static_cast<Wood>(9);
  EXPECT_EQ(complaint_of([&] { requirements.require_rules(SectionReference(table)); }),
            "wood: '' came, expected one of oak, ash, old_pine");
}

}  // namespace
}  // namespace conclave::test
