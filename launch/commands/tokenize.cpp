// Arguments to documents to tokens to files. framework/data does each of these; here they are put in a row.
#include "launch/commands/tokenize.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <map>
#include <optional>

#include "framework/base/error.h"
#include "framework/base/random.h"
#include "framework/data/documents.h"
#include "framework/data/encoded_documents.h"
#include "framework/data/token_file.h"
#include "framework/data/tokenizer.h"

namespace conclave {
namespace {

constexpr const char* help_text =
    R"(conclave tokenize: turns text into token files that `conclave train` reads.

  conclave tokenize --output PREFIX [options] INPUT...
  conclave tokenize --train-sentencepiece PREFIX --vocab-size N [options] INPUT...

INPUT is a text file, a .jsonl file (one JSON object per line) or a folder, whose files are taken in name order.
PREFIX.bin and PREFIX.idx are token files in Megatron's indexed format; PREFIX.json says what they hold.

Examples
  One domain from a book, one document per paragraph, a twentieth of the paragraphs held out for validation:
    conclave tokenize --output data/english --domain english --document-separator blank-line \
        --held-out 0.05 --held-out-output data/english-validation book.txt
  Web text from JSON Lines:
    conclave tokenize --output data/web --domain web --json-field text shard-0.jsonl shard-1.jsonl
  All Python files below a folder, some of which are empty:
    conclave tokenize --output data/python --domain python --extension .py --empty skip /usr/lib/python3
  A vocabulary of your own, then tokens of it:
    conclave tokenize --train-sentencepiece data/pieces --vocab-size 8192 book.txt
    conclave tokenize --output data/english --tokenizer data/pieces.model book.txt

Options for tokens
  --output PREFIX             where to write; folders are made
  --domain NAME               what the text is; the file name of PREFIX when left out
  --tokenizer bytes|MODEL     256 byte values (default), or the path of a SentencePiece .model
  --held-out FRACTION         this fraction of the documents goes to other files; the same ones every time
  --held-out-output PREFIX    those files; PREFIX of --output with -validation added when left out

Options for reading
  --document-separator WHAT   file (default: a file is a document), blank-line or line; .jsonl is always by line
  --json-field NAME           the field of each JSON object that keeps the text; default text
  --split-long BYTES          cuts longer documents at line ends, so that --held-out chooses among the pieces
  --extension .EXT            the files to take from folders; default all
  --empty error|skip          a document without text; default error
  --invalid-utf8 error|replace  bytes that are not UTF-8; default error

Options for --train-sentencepiece
  --vocab-size N              pieces, 256 bytes and 3 control tokens included; default 8192
  --model-kind bpe|unigram    default bpe
  --character-coverage F      rarer characters are spelled in bytes; default 0.9995
  --max-megabytes N           trains on a sample of about this much text; default 100
)";

/// The options by name, each at most once, and the inputs.
struct Arguments {
  std::map<std::string, std::string> options;
  std::vector<std::string> inputs;

  std::string text(const std::string& name, const std::string& otherwise) const {
    const auto found = options.find(name);
    return found == options.end() ? otherwise : found->second;
  }
  bool has(const std::string& name) const { return options.contains(name); }
  /// The value must be one of two words; says whether it is the second one.
  bool second(const std::string& name, const std::string& first_word, const std::string& second_word) const {
    const std::string value = text(name, first_word);
    check(value == first_word || value == second_word, Fault::request, "tokenize: ", name, " ", value,
          " came, expected ", first_word, " or ", second_word);
    return value == second_word;
  }
  template <class Number>
  Number number(const std::string& name, Number otherwise) const {
    if (!has(name)) return otherwise;
    const std::string value = text(name, "");
    Number result{};
    const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), result);
    check(code == std::errc() && end == value.data() + value.size(), Fault::request, "tokenize: ", name, " ",
          value, " came, expected a number");
    return result;
  }
};

constexpr std::string_view option_names =
    " --output --domain --tokenizer --held-out --held-out-output --document-separator --json-field "
    "--split-long "
    "--extension --empty --invalid-utf8 --train-sentencepiece --vocab-size --model-kind --character-coverage "
    "--max-megabytes ";

Arguments parse(const std::vector<std::string>& words) {
  Arguments arguments;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") {
      arguments.inputs.insert(arguments.inputs.end(), words.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                              words.end());
      break;
    }
    if (!word.starts_with("-")) {
      arguments.inputs.push_back(word);
      continue;
    }
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    check(option_names.find(" " + name + " ") != std::string_view::npos, Fault::request,
          "tokenize: the option ", name, " is not known; `conclave tokenize --help` lists all");
    check(!arguments.has(name), Fault::request, "tokenize: the option ", name, " came twice, expected once");
    const bool joined = equals != std::string::npos;
    check(joined || i + 1 < words.size(), Fault::request, "tokenize: the option ", name,
          " needs a value after it");
    arguments.options[name] = joined ? word.substr(equals + 1) : words[++i];
    check(!arguments.options[name].empty(), Fault::request, "tokenize: the option ", name,
          " has an empty value");
  }
  check(!arguments.inputs.empty(), Fault::request,
        "tokenize: no input came; expected text files, .jsonl files or folders (`conclave tokenize --help`)");
  return arguments;
}

DocumentOptions document_options(const Arguments& arguments) {
  return {.separator = arguments.text("--document-separator", "file"),
          .json_field = arguments.text("--json-field", "text"),
          .replace_invalid = arguments.second("--invalid-utf8", "error", "replace"),
          .skip_empty = arguments.second("--empty", "error", "skip"),
          .split_long = arguments.number<std::int64_t>("--split-long", 0),
          .extension = arguments.text("--extension", "")};
}

class Progress {
 public:
  explicit Progress(const DocumentReader& reader) : reader_(reader) {}
  ~Progress() { clear(); }
  void clear() {
    if (shown_) std::fputs("\r\033[K", stderr);
    shown_ = false;
  }
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }
  void show() {
    if (!terminal_ || Clock::now() < next_) return;
    next_ = Clock::now() + std::chrono::seconds(1);
    shown_ = true;
    std::fprintf(stderr, "\r\033[Kread %.1f of %.1f MB", static_cast<double>(reader_.bytes_read()) / 1e6,
                 static_cast<double>(reader_.total_bytes()) / 1e6);
  }

 private:
  using Clock = std::chrono::steady_clock;
  const DocumentReader& reader_;
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool shown_ = false;
  Clock::time_point begin_ = Clock::now(), next_ = begin_ + std::chrono::seconds(1);
};

int train_model(const Arguments& arguments) {
  for (const char* name : {"--output", "--tokenizer", "--held-out", "--held-out-output", "--domain"})
    check(!arguments.has(name), Fault::request, "tokenize: ", name,
          " does not go with --train-sentencepiece; train the model first, then tokenize with it");
  SentencePieceOptions options;
  options.vocab_size = arguments.number("--vocab-size", options.vocab_size);
  options.kind = arguments.text("--model-kind", options.kind);
  options.character_coverage = arguments.number("--character-coverage", options.character_coverage);
  const double wanted = 1e6 * arguments.number("--max-megabytes", 100.0);
  check(wanted > 0, Fault::request, "tokenize: --max-megabytes must be above 0");

  // The trainer works on lines; a text document hands out many.
  DocumentReader reader(arguments.inputs, document_options(arguments));
  Progress progress(reader);
  const RandomKey key = RandomKey(0).with("sentencepiece");
  const double keep = wanted / std::max(1.0, static_cast<double>(reader.total_bytes()));
  std::string document;
  std::size_t at = 0, used = 0;
  std::uint64_t lines = 0;
  const auto next_line = [&](std::string& line) {
    do {
      progress.show();
      while (at >= document.size()) {
        auto next = reader.next();
        if (!next) return false;
        document = std::move(next->text);
        at = 0;
      }
      const std::size_t newline = std::min(document.find('\n', at), document.size());
      line.assign(document, at, newline - at);
      at = newline + 1;
    } while (key.uniform(lines++) >= keep);
    used += line.size();
    return true;
  };
  const std::string prefix = arguments.text("--train-sentencepiece", "");
  train_sentencepiece(next_line, prefix, options);
  progress.clear();
  std::printf("%s.model: %lld %s pieces trained on %.1f MB of text in %.1f s\n", prefix.c_str(),
              static_cast<long long>(options.vocab_size), options.kind.c_str(),
              static_cast<double>(used) / 1e6, progress.seconds());
  return 0;
}

int write_tokens(const Arguments& arguments) {
  for (const char* name : {"--vocab-size", "--model-kind", "--character-coverage", "--max-megabytes"})
    check(!arguments.has(name), Fault::request, "tokenize: ", name, " goes with --train-sentencepiece only");
  check(arguments.has("--output"), Fault::request,
        "tokenize: --output PREFIX is needed; PREFIX.bin, PREFIX.idx and ", "PREFIX.json will be written");
  const std::string prefix = arguments.text("--output", "");
  const double fraction = arguments.number("--held-out", 0.0);
  check(fraction >= 0 && fraction < 1, Fault::request, "tokenize: --held-out ", fraction,
        " came, expected a fraction from 0 to below 1");
  check(fraction > 0 || !arguments.has("--held-out-output"), Fault::request,
        "tokenize: --held-out-output needs --held-out FRACTION");
  const std::string held_out_prefix = arguments.text("--held-out-output", prefix + "-validation");
  const auto place = [](const std::string& path) { return std::filesystem::path(path).lexically_normal(); };
  check(place(held_out_prefix) != place(prefix), Fault::request,
        "tokenize: --output and --held-out-output are both ", prefix, ", expected two places");

  const std::string name = arguments.text("--tokenizer", "bytes");
  const auto tokenizer = load_tokenizer(name);
  TokenDescription description{
      .domain = arguments.text("--domain", std::filesystem::path(prefix).filename().string()),
      .tokenizer = name,
      .fingerprint = tokenizer_fingerprint(name),
      .vocab_size = tokenizer->vocab_size()};
  DocumentReader reader(arguments.inputs, document_options(arguments));
  Progress progress(reader);
  TokenFileWriter kept(prefix, tokenizer->vocab_size());
  std::optional<TokenFileWriter> held_out;
  if (fraction > 0) held_out.emplace(held_out_prefix, tokenizer->vocab_size());

  const RandomKey key = RandomKey(0).with("held-out");
  std::uint64_t document = 0;
  std::size_t bytes = 0;
  for (auto group = encode_documents(reader, *tokenizer); !group.empty();
       group = encode_documents(reader, *tokenizer)) {
    for (const EncodedDocument& encoded : group) {
      bytes += encoded.bytes;
      (held_out && key.uniform(document++) < fraction ? *held_out : kept).append_document(encoded.tokens);
    }
    progress.show();
  }
  check(kept.tokens() > 0 && (!held_out || held_out->tokens() > 0), Fault::data, "tokenize: of ",
        kept.documents() + (held_out ? held_out->documents() : 0), " documents, ", kept.documents(),
        " would go to ", prefix,
        held_out ? join_text(" and ", held_out->documents(), " to ", held_out_prefix) : "",
        "; at least one is expected in each (--split-long and --document-separator make more documents)");
  kept.finish(description);
  if (held_out) held_out->finish(description);
  progress.clear();

  const auto report = [&](const std::string& written, const TokenFileWriter& writer) {
    std::cout << written << ".bin, .idx: " << description.domain << ", " << writer.documents()
              << " documents, " << writer.tokens() << " tokens (" << name << ")\n";
  };
  report(prefix, kept);
  if (held_out) report(held_out_prefix, *held_out);
  std::printf("%.1f MB of text tokenized in %.1f s", static_cast<double>(bytes) / 1e6, progress.seconds());
  if (reader.skipped() > 0)
    std::printf(", %lld empty documents passed over", static_cast<long long>(reader.skipped()));
  std::printf("\n");
  return 0;
}

}  // namespace

int run_tokenize(const std::vector<std::string>& arguments) {
  const bool asks = arguments.empty() ||
                    std::find(arguments.begin(), arguments.end(), "--help") != arguments.end() ||
                    std::find(arguments.begin(), arguments.end(), "-h") != arguments.end();
  if (asks) {
    std::cout << help_text;
    check(!arguments.empty(), Fault::request,
          "tokenize: no arguments came; the help above shows what is possible");
    return 0;
  }
  const Arguments parsed = parse(arguments);
  return parsed.has("--train-sentencepiece") ? train_model(parsed) : write_tokens(parsed);
}

}  // namespace conclave
