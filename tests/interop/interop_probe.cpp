// Conclave's side of the outside checks, as safetensors files:
//   interop_probe random RECIPE.yaml RUN            a checkpoint of initial weights and of some selection
//   bias interop_probe logits RUN TOKENS FILE            logits of each line of token ids, as "0", "1", ...
//   interop_probe step RUN TOKENS FILE key=value... one training step on the lines as sequences of one
//   document:
//                                                   the gradient of every parameter, and "losses": lm_loss,
//                                                   load_balance_loss, router_z_loss, loss
// and as JSON on standard output:
//   interop_probe encode TOKENIZER TEXTS.json       of each text of an array its ids, and what they are
//   decoded
//                                                   to, in hexadecimal
//   interop_probe encode_speed TOKENIZER TEXTS.json seconds to load the tokenizer and to encode, in one
//   thread
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "framework/base/error.h"
#include "framework/base/random.h"
#include "framework/data/tokenizer.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/safetensors.h"
#include "launch/train/model.h"
#include "launch/train/rank_parts.h"
#include "launch/train/recipe_text.h"
#include "launch/train/trainer.h"

namespace conclave {
namespace {

using Lines = std::vector<std::vector<std::int32_t>>;

Lines read_lines(const std::string& path) {
  std::ifstream file(path);
  check(file.good(), Fault::data, "Cannot open ", path);
  Lines lines;
  for (std::string line; std::getline(file, line);) {
    std::istringstream numbers(line);
    std::vector<std::int32_t> ids;
    for (std::int32_t id = 0; numbers >> id;) ids.push_back(id);
    if (!ids.empty()) lines.push_back(std::move(ids));
  }
  return lines;
}

/// Lines of equal length as sequences of one document each.
Batch batch_of(const Lines& lines) {
  Batch batch{.sequences = static_cast<std::int64_t>(lines.size()),
              .length = static_cast<std::int64_t>(lines.at(0).size())};
  for (const std::vector<std::int32_t>& ids : lines) {
    check(ids.size() == lines[0].size(), Fault::data, "the lines differ in length");
    for (std::size_t i = 0; i < ids.size(); ++i) {
      batch.tokens.push_back(ids[i]);
      batch.targets.push_back(i + 1 < ids.size() ? ids[i + 1] : -1);
      batch.document_start.push_back(0);
    }
    batch.domain.push_back(0);
  }
  return batch;
}

struct Named {
  std::string name;
  Dims dims;
  std::vector<float> values;
};

void write(const std::string& path, const std::vector<Named>& tensors) {
  std::vector<SafeTensorPlan> plans;
  for (const Named& tensor : tensors) plans.push_back({tensor.name, false, tensor.dims});
  SafetensorsWriter writer(path, plans);
  for (const Named& tensor : tensors) writer.write(tensor.values.data(), tensor.values.size());
  writer.finish();
}

void make_random(const std::string& recipe_path, const std::string& run) {
  Recipe recipe = load_recipe(recipe_path);
  const Model model(recipe);
  CheckpointWriter writer(run + "/checkpoints", 0);
  for (const Parameter& parameter : model.parameters.all()) {
    std::vector<float> values = parameter.value.to_host<float>();
    const RandomKey key = RandomKey(7).with(parameter.name);
    if (parameter.shape.dims() == 1)  // norms that are not all ones
      for (std::size_t i = 0; i < values.size(); ++i) values[i] += 0.2f * static_cast<float>(key.normal(i));
    writer.add("model/" + parameter.name, dims_of(parameter.shape), values.data());
  }
  for (const MethodState& state : model.feed_forwards.states().all) {
    std::vector<double> values(static_cast<std::size_t>(state.values.elements()));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.2 * RandomKey(8).uniform(i);
    writer.add(state.name, dims_of(state.shape), values.data());
  }
  writer.set("recipe", to_yaml(recipe));
  writer.commit();
}

void write_logits(const std::string& run, const Lines& lines, const std::string& path) {
  const CheckpointReader checkpoint(*find_checkpoint(run).path);
  Model model(recipe_of(checkpoint));
  load_model(checkpoint, model);
  std::vector<Named> tensors;
  for (const std::vector<std::int32_t>& ids : lines) {
    Tape tape(Tape::Mode::forward_only);
    const Tensor hidden = model.transformer.forward(tape, to_device(batch_of({ids}))).hidden.value;
    const Tensor logits = model.transformer.logits(hidden);
    tensors.push_back({std::to_string(tensors.size()), dims_of(logits.shape()), logits.to_host<float>()});
  }
  write(path, tensors);
}

void write_step(const std::string& run, const Lines& lines, const std::string& path,
                const std::vector<std::string>& overrides) {
  const CheckpointReader checkpoint(*find_checkpoint(run).path);
  Recipe recipe = recipe_of(checkpoint);
  for (const std::string& change : overrides) apply_override(recipe, change);
  recipe.training.global_batch_size = static_cast<std::int64_t>(lines.size());
  recipe.training.micro_batch_size = recipe.training.global_batch_size / 2;  // counts go over two of them
  recipe.data.sequence_length = static_cast<std::int64_t>(lines.at(0).size());
  recipe.parallel = {};
  recipe.optimizer.grad_clip = 0;
  Mesh mesh(self_communicator(), {});
  Trainer trainer(recipe, mesh, [&](std::int64_t, std::int64_t first, std::int64_t count) {
    return batch_of({lines.begin() + first, lines.begin() + first + count});
  });
  trainer.take(checkpoint, {"parameters"});
  const StepResult result = trainer.step();
  std::vector<Named> tensors = {
      {"losses",
       {4},
       {static_cast<float>(result.lm_loss), static_cast<float>(result.balance.load_balance_loss),
        static_cast<float>(result.balance.other("router_z_loss")), static_cast<float>(result.loss)}}};
  trainer.gather_gradients([&](const std::string& name, const Tensor& whole) {
    tensors.push_back({name, dims_of(whole.shape()), whole.to_host<float>()});
  });
  write(path, tensors);
}

std::vector<std::string> read_texts(const std::string& path) {
  std::ifstream file(path);
  check(file.good(), Fault::data, "Cannot open ", path);
  return nlohmann::json::parse(file).get<std::vector<std::string>>();
}

void print_ids(const std::string& name, const std::vector<std::string>& texts) {
  const auto tokenizer = load_tokenizer(name);
  nlohmann::json answers = nlohmann::json::array();
  for (const std::string& text : texts) {
    const std::vector<std::int32_t> ids = tokenizer->encode(text);
    std::string digits;
    for (const char byte : tokenizer->decode(ids))
      for (const int half : {static_cast<unsigned char>(byte) >> 4, byte & 15})
        digits += "0123456789abcdef"[half];
    answers.push_back({{"ids", ids}, {"text", digits}});
  }
  std::cout << answers.dump() << "\n";
}

void print_speed(const std::string& name, const std::vector<std::string>& texts) {
  const auto seconds = [](std::clock_t begin) {  // of the processor, whatever else runs
    return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  const std::clock_t before_loading = std::clock();
  const auto tokenizer = load_tokenizer(name);
  const double load_seconds = seconds(before_loading);
  const std::clock_t begin = std::clock();
  std::size_t tokens = 0;
  for (const std::string& text : texts) tokens += tokenizer->encode(text).size();
  std::cout << nlohmann::json{{"load_seconds", load_seconds}, {"seconds", seconds(begin)}, {"tokens", tokens}}
            << "\n";
}

int run(const std::vector<std::string>& arguments) {
  const std::string mode = arguments.empty() ? "" : arguments[0];
  if (mode == "random" && arguments.size() == 3) {
    make_random(arguments[1], arguments[2]);
  } else if (mode == "logits" && arguments.size() == 4) {
    write_logits(arguments[1], read_lines(arguments[2]), arguments[3]);
  } else if (mode == "step" && arguments.size() >= 4) {
    write_step(arguments[1], read_lines(arguments[2]), arguments[3],
               {arguments.begin() + 4, arguments.end()});
  } else if (mode == "encode" && arguments.size() == 3) {
    print_ids(arguments[1], read_texts(arguments[2]));
  } else if (mode == "encode_speed" && arguments.size() == 3) {
    print_speed(arguments[1], read_texts(arguments[2]));
  } else {
    std::cerr
        << "interop_probe random RECIPE RUN | logits RUN TOKENS FILE | step RUN TOKENS FILE key=value ... "
           "| encode TOKENIZER TEXTS | encode_speed TOKENIZER TEXTS\n";
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace conclave

int main(int count, char** arguments) try {
  return conclave::run({arguments + 1, arguments + count});
} catch (const conclave::Error& error) {
  std::cerr << "interop_probe: " << error.what() << "\n";
  return error.exit_code();
}
