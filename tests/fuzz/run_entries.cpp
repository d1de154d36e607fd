// Files of a run directory that a resumed run goes on with, and HDF5 files that are well-formed and not what
// they should be.
#include <filesystem>
#include <fstream>
#include <iterator>

#include "framework/base/error.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/checkpoint_file.h"
#include "framework/store/expert_history.h"
#include "framework/store/expert_history_writer.h"
#include "framework/store/hdf5_file.h"
#include "framework/store/manifest.h"
#include "framework/telemetry/metrics.h"
#include "tests/fuzz/entries.h"

namespace conclave::fuzz {

void run_metrics(std::string_view bytes) {
  constexpr std::int64_t resumed_step = 100;
  const std::string path = file_with("metrics.jsonl", bytes);
  value_or_error([&] { MetricsWriter(path, resumed_step).write({{"step", std::int64_t{7}}}); });
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  promise(text.size() <= bytes.size() + 12, "a resumed metrics file only loses lines");
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const auto step = step_of_line(std::string_view(text).substr(begin, end - begin));
    promise(!step || *step <= resumed_step, "no line of a later step is kept");
  }
  promise(text.ends_with("{\"step\": 7}\n"), "the new line follows");
}

namespace {

void resume(const std::string& path) {
  value_or_error([&] { read_expert_history(path); });
  value_or_error([&] {
    ExpertHistoryWriter writer(path,
                               {.layers = 2, .experts = 4, .domains = {"english", "c"}, .resume_step = 3});
    writer.add_evaluation(4, std::vector<std::int64_t>(16, 1), std::vector<double>(4, 0.5),
                          std::vector<double>(4, 1.0));
    writer.flush();
  });
}

/// One byte after the other, zeros behind the end.
class Choices {
 public:
  explicit Choices(std::string_view bytes) : bytes_(bytes) {}
  int below(int limit) {
    const int byte = bytes_.empty() ? 0 : static_cast<unsigned char>(bytes_.front());
    if (!bytes_.empty()) bytes_.remove_prefix(1);
    return byte % limit;
  }

 private:
  std::string_view bytes_;
};

void add_attribute(Hdf5File& file, const char* name, std::int64_t usual, Choices& choices) {
  const int kind = choices.below(6);
  if (kind == 1) return;
  if (kind == 2) return file.set_attribute("/", name, 0.5);
  if (kind == 3) return file.set_attribute("/", name, std::string("text"));
  file.set_attribute("/", name, kind == 4 ? std::int64_t{choices.below(9) - 4} : usual);
}

void add_dataset(Hdf5File& file, const std::string& name, ElementType usual, Dims dims, Choices& choices) {
  const int kind = choices.below(10);
  if (kind == 1) return;
  if (kind == 2) return file.create_group(name);
  const auto type = kind == 3 ? static_cast<ElementType>(choices.below(5)) : usual;
  if (kind == 4)
    dims[static_cast<std::size_t>(choices.below(static_cast<int>(dims.size())))] = choices.below(20);
  if (kind == 5) dims.push_back(choices.below(4));
  if (kind == 6) dims.clear();
  if (kind == 7)
    dims.assign(static_cast<std::size_t>(1 + choices.below(4)), std::int64_t{1} << choices.below(15));
  const bool huge = kind == 7;
  std::vector<std::int64_t> values(huge ? 0 : static_cast<std::size_t>(element_count(dims)));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int64_t>(i);
  if (huge) return file.write_virtual(name, type, dims, {});  // an announcement without content
  file.write(name, type, dims, values.data());
}

}  // namespace

void run_expert_history_bytes(std::string_view bytes) {
  resume(file_with("experts.h5", bytes));
}

void run_expert_history(std::string_view bytes) {
  const std::string path = file_with("experts.h5", "");
  Choices choices(bytes);
  try {
    Hdf5File file(path, Hdf5File::Mode::create);
    for (const auto& [name, usual] : {std::pair{"layers", 2}, {"experts", 4}, {"expert_ranks", 1}})
      add_attribute(file, name, usual, choices);
    if (const int kind = choices.below(4); kind == 1)
      file.set_attribute("/", "domains", std::int64_t{1});
    else if (kind != 2)
      file.set_attribute("/", "domains", std::string("english\nc"));
    const std::int64_t rows = choices.below(6), evaluations = choices.below(4);
    constexpr ElementType whole = ElementType::int64, real = ElementType::float64;
    add_dataset(file, "step", whole, {rows}, choices);
    add_dataset(file, "counts", whole, {rows, 2, 4}, choices);
    add_dataset(file, "probability", real, {rows, 2, 4}, choices);
    add_dataset(file, "load_per_expert_rank", whole, {rows, 2, 1}, choices);
    add_dataset(file, "layer_balance_loss", real, {rows, 2}, choices);
    add_dataset(file, "layer_load_violation", real, {rows, 2}, choices);
    add_dataset(file, "evaluation/step", whole, {evaluations}, choices);
    add_dataset(file, "evaluation/counts", whole, {evaluations, 2, 2, 4}, choices);
    add_dataset(file, "evaluation/score_sum", real, {evaluations, 2, 2}, choices);
    add_dataset(file, "evaluation/entropy", real, {evaluations, 2, 2}, choices);
    file.close();
  } catch (const Error&) {
    return;  // HDF5 does not make such a file
  }
  resume(path);
}

void run_checkpoint_index(std::string_view bytes) {
  const std::filesystem::path index = file_with("signed/step-00000005/index.h5", "");
  file_with("signed/step-00000005/rank-00000.h5", "");
  Choices choices(bytes);
  try {
    {
      Hdf5File shard(index.parent_path() / "rank-00000.h5", Hdf5File::Mode::create);
      add_dataset(shard, "model/weight", ElementType::float32, {8}, choices);
    }
    Hdf5File file(index, Hdf5File::Mode::create);
    for (const auto& [name, usual] : {std::pair{"format_version", 2}, {"step", 5}, {"tokens", 40}})
      add_attribute(file, name, usual, choices);
    add_dataset(file, "state/fractions", ElementType::float64, {2, 3}, choices);
    const std::int64_t rows = std::int64_t{1} << choices.below(50), columns = choices.below(5);
    const std::int64_t start = choices.below(4), size = 1 + choices.below(4), first = choices.below(8);
    constexpr const char* files[] = {"rank-00000.h5", "rank-00009.h5", "index.h5", "."};
    file.write_virtual("model/weight", static_cast<ElementType>(choices.below(5)), {rows, columns},
                       {{.file = files[choices.below(4)],
                         .dataset = "model/weight",
                         .dims = {8},
                         .from = {{first}, {size * columns}},
                         .to = {{start, 0}, {size, columns}}}});
    file.close();
  } catch (const Error&) {
    return;  // HDF5 does not make such a file
  }
  write_manifest(index.parent_path());
  value_or_error([&] { newest_checkpoint(index.parent_path().parent_path()); });
  value_or_error([&] {
    const CheckpointReader reader(index.parent_path());
    for (const std::string& name : reader.attribute_names()) reader.attribute_text(name);
    for (const std::string& name : reader.names()) {
      reader.describe(name);
      value_or_error([&] { reader.read_all<float>(name); });
      value_or_error([&] { reader.read_all<double>(name); });
      float value = 0;
      value_or_error([&] { reader.read_box(name, ElementType::float32, {{1, 1}, {1, 1}}, &value); });
    }
    value_or_error([&] { reader.integer("tokens"); });
    value_or_error([&] { reader.text("recipe"); });
  });
}

}  // namespace conclave::fuzz
