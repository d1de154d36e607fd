// One function for each loader of foreign bytes: any bytes give either a value or an Error of Fault::data,
// Fault::request or, for values that are not finite, Fault::numeric with a sentence. Any other exception that
// leaves an entry is a finding. The libFuzzer harnesses (harness.cpp) and the test that feeds them all kept
// inputs (inputs_test.cpp) call the same functions.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace conclave::fuzz {

struct Entry {
  std::string name;  // also the folder of its inputs below tests/fuzz/corpus and tests/fuzz/findings
  void (*run)(std::string_view bytes);
};

const std::vector<Entry>& entries();

void run_recipe(std::string_view bytes);             // a recipe file, checked, planned and written again
void run_overrides(std::string_view bytes);          // one key.path=value a line, on a valid recipe
void run_token_file(std::string_view bytes);         // 2 bytes: size of the .idx; the .idx; the .bin
void run_token_description(std::string_view bytes);  // PREFIX.json
void run_data_position(std::string_view bytes);      // data_position of a checkpoint; a plan goes on from it
void run_documents(std::string_view bytes);          // 1 byte: options; a text or .jsonl file
void run_tokenizer(std::string_view bytes);          // a SentencePiece .model
void run_tokenizer_json(std::string_view bytes);     // a tokenizer.json; a zero; text, encoded and back
void run_metrics(std::string_view bytes);            // metrics.jsonl of a run that resumes
void run_expert_history(std::string_view bytes);     // choices that make the experts.h5 of a run that resumes
void run_manifest(std::string_view bytes);           // 1 byte: 1 signs the text; a manifest.json
void run_shard_table(std::string_view bytes);        // 1 byte: 1 signs the table; its lines; a zero; content
void run_checkpoint(std::string_view bytes);         // 5 bytes each: an alteration of a good checkpoint
void run_checkpoint_index(std::string_view bytes);   // choices that make the index.h5 of a signed checkpoint
void run_safetensors(std::string_view bytes);        // a .safetensors file

/// experts.h5 as raw bytes. HDF5 1.10 itself loops for ever on some damaged files, so this one is built and
/// run only when it is named; run_expert_history makes well-formed files of wrong structure instead.
void run_expert_history_bytes(std::string_view bytes);

/// Lets an Error that a loader may throw pass by; anything else that is thrown goes on.
void value_or_error(const std::function<void()>& load);

/// Throws when what a loader returned breaks its promise.
void promise(bool holds, const char* what);

/// A file of this name in the process's own folder, with this content; the same name gives the same path. The
/// name may be FOLDER/NAME.
std::string file_with(const std::string& name, std::string_view bytes);

}  // namespace conclave::fuzz
