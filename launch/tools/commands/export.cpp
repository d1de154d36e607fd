#include "launch/tools/commands/export.h"

#include <cstdio>
#include <filesystem>
#include <iostream>

#include "framework/base/error.h"
#include "framework/base/printable.h"
#include "framework/base/text.h"
#include "framework/store/lookup.h"
#include "launch/tools/commands/command_line.h"
#include "launch/tools/commands/written_files.h"
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/export.h"
#include "launch/tools/convert/gguf/architecture.h"
#include "launch/tools/convert/gguf/export.h"
#include "launch/tools/convert/modeling_code.h"

namespace conclave {

namespace {

std::string names_of_llama_cpp() {
  std::string names;
  for (const gguf::Architecture* architecture : gguf::architectures())
    names += join_text(names.empty() ? "" : ", ", architecture->name);
  return names;
}

CommandUse command_use() {
  return {
      .name = "export",
      .positionals = "CHECKPOINT PLACE",
      .summary = "Writes a checkpoint as a Hugging Face model directory, or as a GGUF file for llama.cpp.",
      .options =
          {{"format", "NAME", "hf, the default, a directory; or gguf, one file"},
           {"arch", "NAME",
            join_text("hf: ", architecture_names(), "; gguf: ", names_of_llama_cpp(),
                      "; without it, the first that can express the model")},
           {"dtype", "TYPE", "fp32, the default, or bf16; gguf also: fp16 or q8_0"},
           {"shard-size", "SIZE", "hf: bytes of tensors in one file, such as 500MB; default 5GB"},
           {"tokenizer", "NAME",
            "in place of the recipe's: bytes, the path of a tokenizer.json or a SentencePiece .model, or "
            "none"}},
      .more =
          "CHECKPOINT is a step-... directory, a checkpoints directory or a run directory (its newest "
          "good one);\n"
          "every byte of it is verified. The directory PLACE gets config.json, generation_config.json, the\n"
          "weights and the tokenizer; the file PLACE has all of that in itself. It is there whole or not at "
          "all.\n"
          "docs/hugging_face.md says which models each architecture can express.\n\n"
          "Examples:\n"
          "  conclave export runs/quickstart exported\n"
          "  conclave export runs/quickstart/checkpoints/step-00000100 exported-bf16 --dtype bf16 "
          "--shard-size 500MB\n"
          "  conclave export runs/quickstart quickstart.gguf --format gguf --dtype q8_0\n"};
}

void say(const std::string& line) {
  std::cout << printable(line) << std::endl;
}

void export_directory(const Options& options, const std::string& checkpoint, const std::string& place) {
  const std::string type = options.text("dtype", "fp32");
  check(type == "fp32" || type == "bf16", Fault::request, "export: --dtype ", type,
        " came, expected fp32 or bf16");
  check(!place.ends_with(".gguf"), Fault::request, "export: ", place,
        " is the name of a GGUF file, and a directory would be written; add --format gguf");
  check_writable("export", place, MissingFolders::are_made);
  export_model({.checkpoint = checkpoint,
                .directory = place,
                .architecture = options.text("arch", ""),
                .bfloat16 = type == "bf16",
                .shard_bytes = bytes_from_text(options.text("shard-size", "5GB")),
                .tokenizer = options.text("tokenizer", "")},
               say);
  const bool brings_code = is_there(std::filesystem::path(place) / modeling_file);
  say(join_text("Done: ", place, ". Try, in Python: transformers.pipeline(\"text-generation\", \"", place,
                brings_code ? "\", trust_remote_code=True" : "\"", ")(\"The \")"));
}

void export_file(const Options& options, const std::string& checkpoint, const std::string& place) {
  check(!options.has("shard-size"), Fault::request,
        "export: --shard-size came, and a GGUF file is one file; leave it out");
  const gguf::NumberType type = gguf::number_type_named(options.text("dtype", "fp32"));
  check_writable("export", place, MissingFolders::are_made);
  gguf::export_model({.checkpoint = checkpoint,
                      .file = place,
                      .architecture = options.text("arch", ""),
                      .type = type,
                      .tokenizer = options.text("tokenizer", "")},
                     say);
  say(join_text("Done: ", place, ". Try: llama-completion --model ", place, " -no-cnv --prompt \"The \""));
}

}  // namespace

int run_export(const std::vector<std::string>& arguments) {
  const Options options(command_use(), arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  options.refuse_overrides();
  const std::vector<std::string>& places = options.positionals();
  check(places.size() == 2, Fault::request,
        "export: ", counted(static_cast<std::int64_t>(places.size()), "place"),
        " came, expected two, a checkpoint and a place where nothing is yet (`conclave export --help`)");
  const std::string format = options.text("format", "hf");
  check(format == "hf" || format == "gguf", Fault::request, "export: --format ", format,
        " came, expected hf or gguf");
  (format == "hf" ? export_directory : export_file)(options, places[0], places[1]);
  return 0;
}

}  // namespace conclave
