// The report's page in a real browser, headless Chromium: no errors, every chart is drawn, keys and the
// choice of blocks work, nothing is wider than a phone, and dark is dark. Skipped where there is no chromium.
#include <fstream>
#include <iterator>

#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

/// Runs in the page, before its own script and after it; leaves what it has seen in an attribute.
constexpr const char* before_script =
    "<script>window.mistakes = [];"
    "addEventListener('error', (event) => mistakes.push(event.message));"
    "const complain = console.error; console.error = (...parts) => { mistakes.push(parts.join(' ')); "
    "complain(...parts); };"
    "</script>";
constexpr const char* after_script = R"(<script>
let looks = 0;
setTimeout(function look() {
  const all = (selector) => [...document.querySelectorAll(selector)];
  // A page is drawn in frames, which come late on a busy machine.
  const drawn = all('figure.chart, figure.heat-map').every((figure) => figure.querySelector('svg[role=img]'));
  if (!drawn && ++looks < 100) { setTimeout(look, 100); return; }
  const press = (element, key) => element.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
  const seen = {
    mistakes, width: document.documentElement.clientWidth, widest: document.documentElement.scrollWidth,
    charts: all('figure.chart').length, drawn: all('figure.chart svg[role=img]').length,
    curves: all('path.curve').filter((path) => path.getAttribute('d').length > 10).length,
    maps: all('figure.heat-map svg image').length, headings: all('h2').map((heading) => heading.textContent),
    paper: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    tables: all('table').length,
  };
  const chart = document.querySelector('figure.chart');
  const before = chart.querySelector('.legend').textContent;
  press(chart.querySelector('svg[role=img]'), 'Home');
  seen.legend = [before, chart.querySelector('.legend').textContent];
  seen.spoken = chart.querySelector('[role=status]').textContent;
  const map = document.querySelector('figure.heat-map');
  press(map.querySelector('svg[role=img]'), 'ArrowRight');
  seen.readout = map.querySelector('.readout').textContent;
  const image = () => map.querySelector('image').getAttribute('href');
  const first = image();
  const slider = document.querySelector('input[type=range]');
  document.querySelector('button[aria-label="next block"]').click();
  seen.block = [slider.value, image() !== first, slider.getAttribute('aria-valuetext')];
  chart.querySelector('details').open = true;
  all('section > details').forEach((details) => { details.open = true; });
  setTimeout(() => {
    seen.numbers = chart.querySelectorAll('tbody tr').length;
    seen.mistakes = mistakes;
    seen.all_charts = all('figure.chart').length;
    document.documentElement.setAttribute('data-seen', btoa(unescape(encodeURIComponent(JSON.stringify(seen)))));
  }, 300);
}, 500);
</script>)";

std::string decoded(const std::string& base64) {
  static const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  unsigned bits = 0, count = 0;
  for (const char letter : base64) {
    if (letter == '=') break;
    bits = bits << 6 | static_cast<unsigned>(letters.find(letter));
    count += 6;
    if (count >= 8) text += static_cast<char>(bits >> (count -= 8) & 0xff);
  }
  return text;
}

class ReportBrowser : public Command {
 protected:
  static void SetUpTestSuite() {
    Command::SetUpTestSuite();
    for (const std::string command : {"chromium", "chromium-browser", "google-chrome"})
      if (browser_.empty() && run("command -v " + command).exit_code == 0) browser_ = command;
    if (browser_.empty()) return;
    for (const std::string name : {"one", "two"}) {
      const Outcome trained = train(name, name == "two" ? "optimizer.lr=0.02" : "");
      ASSERT_EQ(trained.exit_code, 0) << trained.output;
    }
  }
  void SetUp() override {
    if (browser_.empty())
      GTEST_SKIP() << "there is no chromium on this machine (Debian's package is called so)";
  }

  /// The text that the page of these runs shows in a window of this width.
  static Json show(const std::string& runs, int width, const std::string& options = "") {
    const std::string page = path("page.html"), watched = path("watched.html");
    const Outcome reported = conclave_command("report --output " + page + " " + runs);
    EXPECT_EQ(reported.exit_code, 0) << reported.output;
    std::ifstream file(page);
    std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    text.insert(text.find("</head>"), before_script);
    text.insert(text.find("</body>"), after_script);
    std::ofstream(watched) << text;
    // A window is never narrower than 500 pixels, so the page is shown in a frame of its own width.
    const std::string frame = path("frame.html");
    std::ofstream(frame)
        << "<!DOCTYPE html><body style=\"margin:0\"><iframe id=\"frame\" src=\"watched.html\" "
           "style=\"border:0;height:3000px;width:"
        << width
        << "px\"></iframe><script>setInterval(() => { const seen = "
           "document.getElementById('frame').contentDocument?.documentElement?.getAttribute('data-seen');"
           "if (seen) document.body.setAttribute('data-seen', seen); }, 50);</script></body>";
    const Outcome outcome =
        run("timeout 60 " + browser_ +
            " --headless --no-sandbox --disable-gpu --allow-file-access-from-files "
            "--enable-logging=stderr --virtual-time-budget=20000 --hide-scrollbars --window-size=1300,1000 " +
            options + " --user-data-dir=" + path("profile") + " --dump-dom file://" + frame);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_EQ(outcome.output.find("CONSOLE"), std::string::npos) << outcome.output;
    const std::string mark = "data-seen=\"";
    const std::size_t begin = outcome.output.find(mark);
    if (begin == std::string::npos) throw std::runtime_error("the page was not shown: " + outcome.output);
    const std::size_t start = begin + mark.size();
    Json seen = Json::parse(decoded(outcome.output.substr(start, outcome.output.find('"', start) - start)));
    EXPECT_EQ(seen["mistakes"], Json::array());
    EXPECT_EQ(seen["drawn"], seen["charts"]);
    EXPECT_EQ(seen["width"], width);
    EXPECT_LE(seen["widest"], width) << "the page is wider than its window";
    return seen;
  }

  static inline std::string browser_;
};

TEST_F(ReportBrowser, DrawsEverythingOnADesk) {
  const Json seen = show(path("one"), 1280);
  EXPECT_EQ(seen["charts"], 11) << seen;
  EXPECT_EQ(seen["maps"], 5);     // loads over time and by domain; overlap, score sums, entropies
  EXPECT_GE(seen["curves"], 10);  // seven charts of one, one of two domains, three of two blocks
  EXPECT_EQ(seen["headings"],
            Json({"Training", "Domains and time", "Experts", "Layout and memory", "Log and recipe"}));
  EXPECT_NE(seen["legend"][0], seen["legend"][1]);
  EXPECT_NE(seen["legend"][1].get<std::string>().find("at step 1"), std::string::npos) << seen["legend"];
  EXPECT_TRUE(seen["spoken"].get<std::string>().starts_with("step 1: training ")) << seen["spoken"];
  EXPECT_NE(seen["readout"].get<std::string>().find("Expert 0, steps 1 to 1:"), std::string::npos)
      << seen["readout"];
  EXPECT_EQ(seen["block"], Json({"1", true, "block 1 of 0 to 1"}));
  EXPECT_EQ(seen["numbers"], 10);
  EXPECT_GT(seen["all_charts"], seen["charts"]);  // the ones that were folded away
  EXPECT_EQ(seen["paper"], "rgb(255, 255, 255)");
}

TEST_F(ReportBrowser, FitsAPhone) {
  show(path("one"), 360);
}

TEST_F(ReportBrowser, IsDarkWhereTheReaderLikesIt) {
  const Json seen = show(path("one"), 1280, "--blink-settings=preferredColorScheme=0");
  EXPECT_EQ(seen["paper"], "rgb(20, 23, 27)");
  EXPECT_EQ(seen["ink"], "rgb(228, 231, 235)");
}

TEST_F(ReportBrowser, ShowsTwoRuns) {
  const Json seen = show(path("one") + " " + path("two"), 360);
  EXPECT_EQ(seen["headings"][0], "Side by side");
  EXPECT_EQ(seen["charts"], 11) << seen;
}

}  // namespace
}  // namespace conclave
