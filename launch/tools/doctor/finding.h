// The findings of `conclave doctor`, in sections, and the text that shows them. Each finding is fine, worth
// knowing or wrong, and says what to do about it.
#pragma once

#include <string>
#include <vector>

namespace conclave {

enum class Verdict { ok, note, problem };

struct Finding {
  Verdict verdict = Verdict::ok;
  std::string what;      // one line
  std::string advice{};  // what to do; empty where nothing needs doing
};

struct Section {
  std::string title;
  std::vector<Finding> findings{};

  void ok(const std::string& what) { findings.push_back({Verdict::ok, what}); }
  void note(const std::string& what, const std::string& advice = "") {
    findings.push_back({Verdict::note, what, advice});
  }
  void problem(const std::string& what, const std::string& advice) {
    findings.push_back({Verdict::problem, what, advice});
  }
};

/// Counts the findings of all sections that have this verdict.
int count(const std::vector<Section>& sections, Verdict verdict);

/// Writes one line per finding under its section's title, its advice below it. `color` is for a terminal that
/// wants it.
std::string report_text(const std::vector<Section>& sections, bool color);

}  // namespace conclave
