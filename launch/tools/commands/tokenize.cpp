// Arguments to documents to tokens to files. framework/data does each of these; here they are put in a row.
#include "launch/tools/commands/tokenize.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>

#include "framework/base/error.h"
#include "framework/base/printable.h"
#include "framework/base/random.h"
#include "framework/base/text.h"
#include "framework/data/byte_stream.h"
#include "framework/data/documents.h"
#include "framework/data/encoded_documents.h"
#include "framework/data/token_file.h"
#include "framework/data/tokenizer.h"
#include "launch/tools/commands/command_line.h"
#include "launch/tools/commands/token_outputs.h"
#include "launch/tools/commands/written_files.h"

namespace conclave {
namespace {

/// From this many documents on, pieces of one document never stand on both sides of --held-out.
constexpr std::int64_t enough_documents = 20;

CommandUse command_use() {
  return {
      .name = "tokenize",
      .positionals = "INPUT...",
      .summary = "Turns text into token files that `conclave train` reads; trains SentencePiece models too.",
      .options =
          {{"output", "PREFIX", "where to write; folders are made"},
           {"domain", "NAME", "what the text is; default: the file name of PREFIX"},
           {"tokenizer", "NAME", "bytes (default), or the path of a tokenizer.json or SentencePiece .model"},
           {"held-out", "FRACTION", "of the documents goes to other files, for validation"},
           {"held-out-output", "PREFIX", "those files; default: PREFIX of --output with -validation"},
           {"replace", "", "writes token files or a vocabulary anew that are there; without it they stay"},
           {"document-separator", "WHAT",
            "of text files: file (default), blank-line or line; each record of a JSON file is a document"},
           {"json-field", "NAME", "of a JSON object, the field that keeps the text; default text"},
           {"json-files", "WHAT", "files called .json: records (default), as below, or text as it is"},
           {"skip-bad-lines", "", "pass over lines that cannot be read as documents, and count them"},
           {"split-long", "BYTES", "cuts longer documents into pieces at line ends; 0, default: never"},
           {"extension", ".EXT", "the files to take from folders; default: all"},
           {"empty", "WHAT", "a document without text: error (default) or skip"},
           {"invalid-utf8", "WHAT", "bytes that are not UTF-8: error (default) or replace"},
           {"train-sentencepiece", "PREFIX", "trains a vocabulary of your own: PREFIX.model"},
           {"vocab-size", "N", "its pieces, 256 bytes and 3 control tokens included; default 8192"},
           {"model-kind", "KIND", "bpe (default) or unigram"},
           {"character-coverage", "X", "rarer characters are spelled in bytes; default 0.9995"},
           {"max-megabytes", "X", "trains on a sample of about this much text; default 100"}},
      .more =
          R"(INPUT is a text file, a JSON file or a folder, whose files are taken in name order. Each may be
compressed by gzip, zstd or xz. A .jsonl or .ndjson file has one JSON object per line. A .json file may
have that too, or an array of objects, or one object with the field of the text; any other is text.
Capital letters in an ending change nothing.

PREFIX.bin and PREFIX.idx are token files in Megatron's indexed format; PREFIX.json says what they
hold. No output may be one of the inputs, and only --replace writes over token files.

--held-out takes the same documents every time. Where the input has 20 documents or more, all pieces
that --split-long makes of a document go the same way, so that no held-out text has its other half in
training. An input of fewer documents, a book for example, is held out by piece.

A tokenizer.json is Hugging Face's, of the byte-level BPE kind (GPT-2, Llama 3, Qwen). Its ids are
those of the library `tokenizers`: added tokens that stand in text become those tokens, and nothing is
put around text, except the end of a document behind it: the eos_token of a tokenizer_config.json
beside it, or else the token that is called <|endoftext|> or alike. docs/tokenizers.md says more,
and docs/data.md about the rest.

Examples:
  One domain from a book, one document per paragraph, a twentieth of the paragraphs held out:
    conclave tokenize --output data/english --domain english --document-separator blank-line \
        --held-out 0.05 --held-out-output data/english-validation book.txt
  Web text from JSON Lines:
    conclave tokenize --output data/web --domain web --json-field text shard-0.jsonl shard-1.jsonl
  All Python files below a folder, some of which are empty:
    conclave tokenize --output data/python --domain python --extension .py --empty skip /usr/lib/python3
  A vocabulary of your own, then tokens of it:
    conclave tokenize --train-sentencepiece data/pieces --vocab-size 8192 book.txt
    conclave tokenize --output data/english --tokenizer data/pieces.model book.txt
  Tokens of a model that is there:
    conclave tokenize --output data/english --tokenizer Qwen3-30B-A3B/tokenizer.json book.txt)"};
}

/// The value must be one of two words; says whether it is the second one.
bool is_second(const Options& options, const std::string& name, const std::string& first,
               const std::string& second) {
  const std::string value = options.text(name, first);
  check(value == first || value == second, Fault::request, "tokenize: --", name, " ", value,
        " came, expected ", first, " or ", second);
  return value == second;
}

DocumentOptions document_options(const Options& options) {
  return {.separator = options.text("document-separator", "file"),
          .json_field = options.text("json-field", "text"),
          .json_as_text = is_second(options, "json-files", "records", "text"),
          .replace_invalid = is_second(options, "invalid-utf8", "error", "replace"),
          .skip_empty = is_second(options, "empty", "error", "skip"),
          .split_long = options.whole_number("split-long", 0, 0),
          .extension = options.text("extension", ""),
          .skip_bad_lines = options.has("skip-bad-lines")};
}

/// The line on a terminal that says how much of the input has been read.
class ReadingLine {
 public:
  explicit ReadingLine(const DocumentReader& reader) : reader_(reader) {}
  ~ReadingLine() { clear(); }
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

/// An output that is an input, under whatever name, would be lost: the files that are read are replaced.
void refuse_overwriting(const std::vector<std::string>& inputs, const std::vector<std::string>& outputs) {
  for (const std::string& output : outputs) {
    std::error_code code;
    if (!std::filesystem::exists(output, code)) continue;
    for (const std::string& input : inputs)
      check(!std::filesystem::equivalent(input, output, code), Fault::request, "tokenize: ", output,
            " would be written, and it is the input ", input, "; choose another place for what is written");
  }
}

std::vector<std::string> files_of(const std::vector<std::string>& prefixes) {
  std::vector<std::string> files;
  for (const std::string& prefix : prefixes)
    for (const char* ending : {".bin", ".idx", ".json"}) files.push_back(prefix + ending);
  return files;
}

/// How much text the inputs hold. Only unpacking says it of compressed ones.
double text_bytes(const Options& options, const DocumentReader& reader) {
  if (std::none_of(reader.paths().begin(), reader.paths().end(), is_compressed))
    return static_cast<double>(reader.total_bytes());
  DocumentReader counted(options.positionals(), document_options(options));
  double bytes = 0;
  while (const auto document = counted.next()) bytes += static_cast<double>(document->text.size());
  return bytes;
}

/// Says what was passed over or changed.
void report_reading(const DocumentReader& reader) {
  if (reader.skipped() > 0)
    std::printf("%s passed over\n", counted(reader.skipped(), "empty document").c_str());
  if (reader.bad_lines() > 0)
    std::printf("%s passed over; the first: %s\n", counted(reader.bad_lines(), "bad line").c_str(),
                printable(reader.first_bad_line()).c_str());
  if (const std::int64_t documents = reader.lone_surrogates(); documents > 0)
    std::printf("%s halves of surrogate pairs, which are no characters; they became U+FFFD\n",
                documents == 1 ? "1 document has" : (counted(documents, "document") + " have").c_str());
  if (const std::vector<std::string>& files = reader.json_read_as_text(); !files.empty())
    std::printf(
        "read as plain text: %s%s (no object with the field of --json-field, and no several objects)\n",
        printable(files[0]).c_str(),
        files.size() == 1
            ? ""
            : join_text(" and ", counted(static_cast<std::int64_t>(files.size()) - 1, "other file")).c_str());
}

int train_model(const Options& options) {
  for (const char* name : {"output", "tokenizer", "held-out", "held-out-output", "domain"})
    check(!options.has(name), Fault::request, "tokenize: --", name,
          " does not go with --train-sentencepiece; train the model first, then tokenize with it");
  SentencePieceOptions model;
  model.vocab_size = options.whole_number("vocab-size", model.vocab_size, 1);
  model.kind = options.text("model-kind", model.kind);
  model.character_coverage = options.number("character-coverage", model.character_coverage);
  const double megabytes = options.number("max-megabytes", 100.0);
  check(megabytes > 0, Fault::request, "tokenize: --max-megabytes ", megabytes, " came, expected above 0");

  // The trainer works on lines; a text document hands out many.
  const std::string prefix = options.text("train-sentencepiece", "");
  check_prefix("train-sentencepiece", prefix);
  DocumentReader reader(options.positionals(), document_options(options));
  refuse_overwriting(reader.paths(), {prefix + ".model"});
  check_model_file(prefix, options.has("replace"));
  const double keep = 1e6 * megabytes / std::max(1.0, text_bytes(options, reader));
  ReadingLine progress(reader);
  const RandomKey key = RandomKey(0).with("sentencepiece");
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
  train_sentencepiece(next_line, prefix, model);
  progress.clear();
  std::printf("%s.model: %lld %s pieces trained on %.1f MB of text in %.1f s\n", printable(prefix).c_str(),
              static_cast<long long>(model.vocab_size), model.kind.c_str(), static_cast<double>(used) / 1e6,
              progress.seconds());
  report_reading(reader);
  return 0;
}

/// True where the input has so many documents (not pieces of one) that each can go one way as a whole.
bool has_enough_documents(const std::vector<std::string>& inputs, const DocumentOptions& options) {
  DocumentReader reader(inputs, options);
  std::int64_t documents = 0;
  while (documents < enough_documents) {
    const auto piece = reader.next();
    if (!piece) return false;
    documents += piece->complete;
  }
  return true;
}

int write_tokens(const Options& options) {
  for (const char* name : {"vocab-size", "model-kind", "character-coverage", "max-megabytes"})
    check(!options.has(name), Fault::request, "tokenize: --", name, " goes with --train-sentencepiece only");
  check(options.has("output"), Fault::request,
        "tokenize: --output PREFIX is needed; PREFIX.bin, PREFIX.idx and PREFIX.json will be written");
  const std::string prefix = options.text("output", "");
  const double fraction = options.number("held-out", 0.0);
  check(fraction >= 0 && fraction < 1, Fault::request, "tokenize: --held-out ", fraction,
        " came, expected a fraction from 0 to below 1");
  check(fraction > 0 || !options.has("held-out-output"), Fault::request,
        "tokenize: --held-out-output needs --held-out FRACTION");
  const std::string held_out_prefix = options.text("held-out-output", prefix + "-validation");
  const auto place = [](const std::string& path) { return std::filesystem::path(path).lexically_normal(); };
  check(place(held_out_prefix) != place(prefix), Fault::request,
        "tokenize: --output and --held-out-output are both ", prefix, ", expected two places");
  check_prefix("output", prefix);
  check_prefix("held-out-output", held_out_prefix);

  const std::string name = options.text("tokenizer", "bytes");
  const auto tokenizer = load_tokenizer(name);
  TokenDescription description{
      .domain = options.text("domain", std::filesystem::path(prefix).filename().string()),
      .tokenizer = name,
      .fingerprint = tokenizer_fingerprint(name),
      .vocab_size = tokenizer->vocab_size()};
  const DocumentOptions reading = document_options(options);
  DocumentReader reader(options.positionals(), reading);
  std::vector<std::string> read = reader.paths();
  if (name != "bytes") read.push_back(name);
  if (name.ends_with(".json"))
    read.push_back((std::filesystem::path(name).parent_path() / "tokenizer_config.json").string());
  std::vector<std::string> prefixes = {prefix};
  if (fraction > 0) prefixes.push_back(held_out_prefix);
  refuse_overwriting(read, files_of(prefixes));
  for (const std::string& written : prefixes) check_token_files(written, options.has("replace"));
  // Without --split-long every piece is a document, and both ways are the same.
  const bool whole_documents =
      fraction > 0 && reading.split_long > 0 && has_enough_documents(options.positionals(), reading);
  ReadingLine progress(reader);
  TokenFileWriter kept(prefix, tokenizer->vocab_size());
  std::optional<TokenFileWriter> held_out;
  if (fraction > 0) held_out.emplace(held_out_prefix, tokenizer->vocab_size());

  const RandomKey key = RandomKey(0).with("held-out");
  std::uint64_t draw = 0;
  std::size_t bytes = 0;
  for (auto group = encode_documents(reader, *tokenizer); !group.empty();
       group = encode_documents(reader, *tokenizer)) {
    for (const EncodedDocument& encoded : group) {
      bytes += encoded.bytes;
      (held_out && key.uniform(draw) < fraction ? *held_out : kept).append_document(encoded.tokens);
      draw += encoded.complete || !whole_documents;
    }
    progress.show();
  }
  check(kept.tokens() > 0 && (!held_out || held_out->tokens() > 0), Fault::data, "tokenize: of ",
        counted(kept.documents() + (held_out ? held_out->documents() : 0), "document"), ", ",
        kept.documents(), " would go to ", prefix,
        held_out ? join_text(" and ", held_out->documents(), " to ", held_out_prefix) : "",
        "; at least one is expected in each (",
        whole_documents ? "another --held-out may help, or a --document-separator that makes more documents)"
                        : "--split-long and --document-separator make more documents)");
  kept.finish(description);
  if (held_out) held_out->finish(description);
  progress.clear();

  const auto report = [&](const std::string& written, const TokenFileWriter& writer) {
    std::cout << printable(join_text(written, ".bin, .idx: ", description.domain, ", ",
                                     counted(writer.documents(), "document"), ", ",
                                     counted(writer.tokens(), "token"), " (", name, ")\n"));
  };
  report(prefix, kept);
  if (held_out) report(held_out_prefix, *held_out);
  std::printf("%.1f MB of text tokenized in %.1f s\n", static_cast<double>(bytes) / 1e6, progress.seconds());
  report_reading(reader);
  return 0;
}

}  // namespace

int run_tokenize(const std::vector<std::string>& arguments) {
  const CommandUse use = command_use();
  const Options options(use, arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  options.refuse_overrides();  // an input with such a name is written ./name=value
  for (const OptionUse& option : use.options)
    check(option.value.empty() || !options.has(option.name) || !options.text(option.name, "").empty(),
          Fault::request, "tokenize: --", option.name, " came with an empty value, expected --", option.name,
          " ", option.value);
  check(!options.positionals().empty(), Fault::request,
        "tokenize: no input came; expected text files, JSON files or folders (`conclave tokenize --help`)");
  const UnfinishedFilesGuard guard;
  return options.has("train-sentencepiece") ? train_model(options) : write_tokens(options);
}

}  // namespace conclave
