// Journals and what is concluded from them, on made-up ranks: real stalls are in
// tests/launch/reliability_test.cpp.
#include "parallel/watchdog.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

namespace conclave {
namespace {

class Journals : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "conclave-journal-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

JournalEntry call(const char* name, std::int64_t sequence, Members members,
                  const char* operation = "all_reduce") {
  JournalEntry entry;
  entry.communicator = static_cast<std::uint64_t>(name[0]) * 1000 + static_cast<std::uint64_t>(members.first);
  entry.sequence = sequence;
  entry.members = members;
  std::strcpy(entry.name.data(), name);
  std::strcpy(entry.operation.data(), operation);
  std::strcpy(entry.purpose.data(), "gradients");
  return entry;
}

/// A rank that has entered these and waits in the last one, or not.
RankView rank_with(int rank, const std::vector<JournalEntry>& calls, bool waits, bool responding = true) {
  RankView view;
  view.written = true;
  view.responding = responding;
  view.record.rank = rank;
  view.record.process = 100 + rank;
  view.record.host = "node";
  view.record.step = 7;
  view.record.activity = Activity::forward;
  view.record.quiet_seconds = 30;
  for (const JournalEntry& entry : calls)
    view.record.ring[static_cast<std::size_t>(view.record.entered++ % journal_entries)] = entry;
  view.record.waiting = waits ? view.record.entered - 1 : -1;
  return view;
}

void expect_text(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST_F(Journals, WhatIsNotedIsReadBack) {
  auto journal = std::make_unique<Journal>(folder_ / "", 3, 5);
  for (int i = 0; i < 100; ++i) journal->leave(journal->enter(call("world", i + 1, {0, 1, 5})));
  const std::int64_t number = journal->enter(call("data", 9, {1, 2, 2}));
  journal->wait(number);
  journal->note(Activity::backward, 12);
  const std::optional<RankRecord> record = read_journal(folder_, 3);
  ASSERT_TRUE(record);
  EXPECT_EQ(record->rank, 3);
  EXPECT_EQ(record->process, ::getpid());
  EXPECT_EQ(record->step, 12);
  EXPECT_EQ(record->activity, Activity::backward);
  EXPECT_EQ(record->entered, 101);
  ASSERT_NE(record->waits_in(), nullptr);
  EXPECT_EQ(record->waits_in()->sequence, 9);
  EXPECT_EQ(record->waits_in()->left, 0);
  EXPECT_EQ(record->ring[99 % journal_entries].sequence, 100);
  EXPECT_GE(record->ring[99 % journal_entries].left, record->ring[99 % journal_entries].entered);
  EXPECT_FALSE(process_is_gone(*record));
  EXPECT_FALSE(read_journal(folder_, 2));
  journal->leave(number);
  EXPECT_EQ(read_journal(folder_, 3)->waits_in(), nullptr);
  journal.reset();
  EXPECT_FALSE(std::filesystem::exists(folder_));  // the last one leaves nothing
}

TEST_F(Journals, ADeadProcessIsSeenAndOneThatLeftIsNot) {
  for (const bool leaves : {false, true}) {
    clear_journals(folder_);
    const pid_t child = ::fork();
    if (child == 0) {
      auto* journal = new Journal(folder_, 1, 2);
      journal->note(Activity::forward, 5);
      journal->wait(journal->enter(call("world", 4, {0, 1, 2})));
      if (leaves) journal->mark_leaving();
      ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    const std::string text = describe_dead_ranks(folder_, 2);
    if (leaves)
      EXPECT_EQ(text, "");
    else
      expect_text(text, "died in forward of step 5, waiting in all_reduce 4 of world (gradients)");
  }
}

TEST_F(Journals, OneSpeaks) {
  clear_journals(folder_);
  EXPECT_TRUE(claim_last_word(folder_));
  EXPECT_FALSE(claim_last_word(folder_));
}

TEST_F(Journals, TheWatchdogBarksOnceItIsQuietAndNotBefore) {
  clear_journals(folder_);
  Journal journal(folder_, 0, 1);
  std::atomic<int> said{0}, ended{0};
  WatchdogOptions options{.seconds = 0.5, .report = folder_ / "report.txt"};
  options.say = [&](const std::string&) { ++said; };
  options.end = [&] { ++ended; };
  {
    const Watchdog watchdog(journal, options);
    for (int i = 0; i < 30; ++i) {  // six times its patience, with events
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      journal.note_progress();
    }
    EXPECT_EQ(said, 0);
    const auto begin = std::chrono::steady_clock::now();
    while (ended == 0 && std::chrono::steady_clock::now() - begin < std::chrono::seconds(10))
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(8));
    EXPECT_EQ(said, 1);
    EXPECT_EQ(ended, 1);
  }
}

TEST(Stall, TheRankThatIsMissingIsPlaced) {
  const Members all{0, 1, 4};
  const JournalEntry before = call("world", 1, all), now = call("world", 2, all);
  const auto views = [&](const RankView& third) {
    return std::vector<RankView>{rank_with(0, {before, now}, true), rank_with(1, {before, now}, true),
                                 rank_with(2, {before, now}, true), third};
  };
  const std::string outside = describe_stall(views(rank_with(3, {before}, false)));
  expect_text(
      outside,
      "all_reduce number 2 of communicator world, for gradients, is not complete: ranks 0-2 are in it, rank "
      "3 "
      "is not; rank 3 (process 103 on node) is outside any collective since 30 s, in forward of step 7, its "
      "last collective was all_reduce 1 of world (gradients)");
  expect_text(describe_stall(views(rank_with(3, {before}, false, false))),
              "is not responding: stopped or dead");
  expect_text(describe_stall(views({})), "rank 3 has left the run");
  expect_text(describe_stall(views(rank_with(3, {before, call("world", 2, all, "barrier")}, true))),
              "rank 3 waits in barrier 2 of world (gradients)");
}

TEST(Stall, ARequestThatOneHasOnlyBegunIsTold) {
  const JournalEntry request = call("data", 5, {0, 1, 2}), after = call("data", 6, {0, 1, 2});
  // Rank 1 has begun both requests and computes; rank 0 waits for the first.
  RankView waiting = rank_with(0, {request, after}, false);
  waiting.record.waiting = 0;
  for (const bool responding : {true, false}) {
    const std::string text = describe_stall({waiting, rank_with(1, {request, after}, false, responding)});
    expect_text(
        text,
        "number 5 of communicator data, for gradients, is not complete: rank 0 is in it, rank 1 has begun "
        "it and is elsewhere; rank 1 (process 101 on node) is ");
    expect_text(text, responding ? "outside any collective" : "not responding: stopped or dead");
  }
}

TEST(Stall, OfSeveralTheRootIsNamed) {
  // 0 and 1 wait for 2 and 3, 2 waits for 3 in its pair, and 3 computes.
  const JournalEntry wide = call("world", 5, {0, 1, 4}), pair = call("tensor", 9, {2, 1, 2});
  const std::string text =
      describe_stall({rank_with(0, {wide}, true), rank_with(1, {wide}, true), rank_with(2, {pair}, true),
                      rank_with(3, {call("tensor", 8, {2, 1, 2})}, false)});
  expect_text(text, "rank 3 (process 103 on node) is outside any collective");
  const std::string pairs = describe_stall({rank_with(0, {call("pair", 3, {0, 1, 2})}, true),
                                            rank_with(1, {call("cross", 4, {1, 1, 2})}, true),
                                            rank_with(2, {call("cross", 3, {1, 1, 2})}, false, false)});
  expect_text(
      pairs,
      "all_reduce number 4 of communicator cross, for gradients, is not complete: rank 1 is in it, rank 2 "
      "is not");
}

TEST(Stall, StridedMembersAreTold) {
  const JournalEntry now = call("data", 2, {1, 2, 2});
  EXPECT_TRUE(now.members.contain(3));
  EXPECT_FALSE(now.members.contain(2));
  EXPECT_FALSE(now.members.contain(5));
  const std::string text = describe_stall(
      {rank_with(0, {}, false), rank_with(1, {now}, true), rank_with(2, {}, false), rank_with(3, {}, false)});
  expect_text(text, "rank 1 is in it, rank 3 is not; rank 3");
  EXPECT_EQ(text.find("rank 0"), std::string::npos) << text;
}

TEST(Stall, WithoutAnyCollectiveEveryRankIsPlaced) {
  expect_text(
      describe_stall({rank_with(0, {}, false)}),
      "no rank waits in a collective; rank 0 (process 100 on node) is outside any collective since 30 s, in "
      "forward of step 7, it has entered no collective yet");
}

}  // namespace
}  // namespace conclave
