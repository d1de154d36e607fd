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
#include "launch/tools/convert/modeling_code.h"

namespace conclave {

int run_export(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "export",
       .positionals = "CHECKPOINT DIR",
       .summary = "Writes a checkpoint as a Hugging Face model directory.",
       .options =
           {{"arch", "NAME",
             "one of " + architecture_names() +
                 "; without it, the first of these that can express the model"},
            {"dtype", "TYPE", "fp32, the default, or bf16"},
            {"shard-size", "SIZE", "bytes of tensors in one file, such as 500MB; default 5GB"},
            {"tokenizer", "NAME",
             "in place of the recipe's: bytes, the path of a tokenizer.json or a SentencePiece .model, or "
             "none"}},
       .more =
           "CHECKPOINT is a step-... directory, a checkpoints directory or a run directory (its newest "
           "good one);\n"
           "every byte of it is verified. DIR gets config.json, generation_config.json, the weights and the\n"
           "tokenizer, and is there whole or not at all. docs/hugging_face.md says which models each\n"
           "architecture can express.\n\n"
           "Examples:\n"
           "  conclave export runs/quickstart exported\n"
           "  conclave export runs/quickstart/checkpoints/step-00000100 exported-bf16 --dtype bf16 "
           "--shard-size 500MB\n"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  options.refuse_overrides();
  const std::vector<std::string>& places = options.positionals();
  check(places.size() == 2, Fault::request,
        "export: ", counted(static_cast<std::int64_t>(places.size()), "place"),
        " came, expected two, a checkpoint and a directory that does not exist yet (`conclave export "
        "--help`)");
  const std::string type = options.text("dtype", "fp32");
  check(type == "fp32" || type == "bf16", Fault::request, "export: --dtype ", type,
        " came, expected fp32 or bf16");
  check_writable("export", places[1], MissingFolders::are_made);
  export_model({.checkpoint = places[0],
                .directory = places[1],
                .architecture = options.text("arch", ""),
                .bfloat16 = type == "bf16",
                .shard_bytes = bytes_from_text(options.text("shard-size", "5GB")),
                .tokenizer = options.text("tokenizer", "")},
               [](const std::string& line) { std::cout << printable(line) << std::endl; });
  const bool brings_code = is_there(std::filesystem::path(places[1]) / modeling_file);
  std::cout << printable(join_text(
                   "Done: ", places[1], ". Try, in Python: transformers.pipeline(\"text-generation\", \"",
                   places[1], brings_code ? "\", trust_remote_code=True" : "\"", ")(\"The \")"))
            << std::endl;
  return 0;
}

}  // namespace conclave
