// A choice between structs: which of them is meant is told by its kind, and the rest follows from its own
// keys.
#include <gtest/gtest.h>

#include "framework/recipe/changes.h"
#include "tests/framework/recipe/toy.h"

namespace conclave::test {
namespace {

TEST(Choice, IsReadAsAWordOrAsASection) {
  EXPECT_EQ(read_table("legs: plain").legs.index(), 0u);
  EXPECT_EQ(std::get<TurnedLegs>(read_table("legs: turned").legs), TurnedLegs());
  EXPECT_EQ(std::get<TurnedLegs>(read_table("legs: {rings: 4, kind: turned}").legs), (TurnedLegs{4, 0.25}));
  const Table steel = read_table("legs: {kind: steel, box: {label: tools}}");
  EXPECT_EQ(std::get<SteelLegs>(steel.legs), (SteelLegs{0, {"tools"}}));
  EXPECT_EQ(read_table("legs:").legs.index(), 0u);
}

TEST(Choice, IsOverriddenWholeOrKeyByKey) {
  const std::string turned = "legs: {kind: turned, rings: 5, taper: 0.5}";
  EXPECT_EQ(std::get<TurnedLegs>(read_table(turned, {"legs.rings=6"}).legs), (TurnedLegs{6, 0.5}));
  EXPECT_EQ(std::get<TurnedLegs>(read_table(turned, {"legs={rings: 6}"}).legs), (TurnedLegs{6, 0.5}));
  EXPECT_EQ(std::get<TurnedLegs>(read_table(turned, {"legs.kind=turned"}).legs), (TurnedLegs{5, 0.5}));
  EXPECT_EQ(std::get<TurnedLegs>(read_table(turned, {"legs=turned"}).legs), TurnedLegs()) << "its defaults";
  const Table steel = read_table(turned, {"legs.kind=steel", "legs.taper=0.125"});
  EXPECT_EQ(std::get<SteelLegs>(steel.legs).taper, 0.125) << "not that of the legs before";
  EXPECT_EQ(steel.places.of_key.count("legs.rings"), 0u);
  EXPECT_EQ(steel.places.of("legs.kind"), "override 'legs.kind=steel': ");
}

TEST(Choice, IsWrittenAsAWordWhereItHasNoKeys) {
  for (const char* text : {"legs: plain", "legs: turned", "legs: {kind: turned, rings: 9, taper: 1}",
                           "legs: {kind: steel, box: {label: x}}"}) {
    const Table table = read_table(text);
    EXPECT_EQ(read_table(yaml_of(table)), table) << yaml_of(table);
    EXPECT_EQ(read_table(annotated_yaml_of(table)), table) << annotated_yaml_of(table);
  }
  EXPECT_TRUE(
      yaml_of(read_table("legs: turned")).ends_with("legs:\n  kind: turned\n  rings: 3\n  taper: 0.25\n"));
  EXPECT_TRUE(annotated_yaml_of(read_table("legs: plain")).ends_with("  # what it stands on [plain]\n"));
  const std::string steel = annotated_yaml_of(read_table("legs: steel"));
  for (const char* part :
       {"# which one: plain, turned, steel [plain]\n", "# how much narrower a leg is at its foot [0]\n",
        "# metres from front to back [0.5]\n"})
    EXPECT_NE(steel.find(part), std::string::npos) << part << " is missing from\n" << steel;
}

TEST(Choice, SaysWhatIsWrong) {
  const std::vector<std::pair<const char*, const char*>> table = {
      {"legs: turnd",
       "table.yaml:1: legs: 'turnd' came, expected one of plain, turned, steel; did you mean 'turned'?"},
      {"legs: {kind: wood}", "table.yaml:1: legs.kind: 'wood' came, expected one of plain, turned, steel"},
      {"legs: {kind: [plain]}", "table.yaml:1: legs.kind: a list came, expected one of plain, turned, steel"},
      {"legs: [plain]",
       "table.yaml:1: legs: a list came, expected one of plain, turned, steel, or a section of keys with its "
       "kind"},
      {"legs: {rings: 1}",
       "table.yaml:1: legs.rings: there is no such key where the kind is plain, whose keys are kind"},
      {"legs: {kind: steel, rings: 1}",
       "table.yaml:1: legs.rings: there is no such key where the kind is steel, whose keys are kind, taper, "
       "box"},
      {"legs: {kind: turned, ring: 1}",
       "table.yaml:1: legs.ring: there is no such key; did you mean legs.rings?"},
      {"legs: {kind: turned, rings: -1}",
       "table.yaml:1: legs.rings: -1 came, expected at least 0 and at most 2147483647"},
  };
  for (const auto& [bad, sentence] : table) EXPECT_EQ(complaint_of([&] { read_table(bad); }), sentence);
}

TEST(Choice, IsCompletedSuggestedAndCompared) {
  EXPECT_EQ(table_schema().completions("le"), (std::vector<std::string>{"legs.", "legs="}));
  EXPECT_EQ(table_schema().completions("legs=t"), std::vector<std::string>{"legs=turned"});
  EXPECT_EQ(table_schema().completions("legs.kind=s"), std::vector<std::string>{"legs.kind=steel"});
  EXPECT_EQ(table_schema().completions("legs."),
            (std::vector<std::string>{"legs.kind=", "legs.rings=", "legs.taper=", "legs.box."}));
  Table plain, turned = read_table("legs: turned");
  EXPECT_EQ(key_text(SectionReference(plain), table_schema(), "legs"), "plain");
  EXPECT_EQ(key_text(SectionReference(turned), table_schema(), "legs.rings"), "3");
  std::vector<std::string> texts;
  for (const KeyChange& change : changes_between(SectionReference(plain), SectionReference(turned)))
    texts.push_back(change.key + ": " + change_text(change));
  EXPECT_EQ(texts, (std::vector<std::string>{"legs.kind: none -> turned", "legs.rings: none -> 3",
                                             "legs.taper: none -> 0.25", "legs: plain -> none"}));
}

}  // namespace
}  // namespace conclave::test
