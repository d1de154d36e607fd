#include "launch/tools/doctor/finding.h"

#include <algorithm>

#include "framework/base/printable.h"

namespace conclave {
namespace {

struct Style {
  const char* word;
  const char* color;
};

Style style_of(Verdict verdict) {
  if (verdict == Verdict::ok) return {"OK     ", "\x1b[32m"};
  return verdict == Verdict::note ? Style{"note   ", "\x1b[33m"} : Style{"PROBLEM", "\x1b[31m"};
}

}  // namespace

int count(const std::vector<Section>& sections, Verdict verdict) {
  std::ptrdiff_t sum = 0;
  for (const Section& section : sections)
    sum += std::count_if(section.findings.begin(), section.findings.end(),
                         [&](const Finding& finding) { return finding.verdict == verdict; });
  return static_cast<int>(sum);
}

std::string report_text(const std::vector<Section>& sections, bool color) {
  std::string text;
  for (const Section& section : sections) {
    if (section.findings.empty()) continue;
    text += (text.empty() ? "" : "\n") + printable(section.title) + "\n";
    for (const Finding& finding : section.findings) {
      const Style style = style_of(finding.verdict);
      text += "  " + (color ? style.color + std::string(style.word) + "\x1b[0m" : style.word) + "  " +
              printable(finding.what) + "\n";
      if (!finding.advice.empty()) text += "             " + printable(finding.advice) + "\n";
    }
  }
  return text;
}

}  // namespace conclave
