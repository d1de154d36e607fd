// Hdf5File: what is written comes back, by type, dims and name, and every misuse is a sentence.
#include "framework/store/hdf5_file.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "tests/framework/store/scratch_directory.h"

namespace conclave {
namespace {

template <class T>
class Hdf5RoundTrip : public ::testing::Test {};
using AllTypes = ::testing::Types<float, double, std::int32_t, std::int64_t, std::uint8_t>;
TYPED_TEST_SUITE(Hdf5RoundTrip, AllTypes);

TYPED_TEST(Hdf5RoundTrip, EveryDimsComesBack) {
  const ScratchDirectory scratch;
  const std::vector<Dims> shapes = {{}, {1}, {7}, {0}, {3, 0, 2}, {2, 3, 5}, {1, 1, 1, 13}};
  const auto name_of = [](std::size_t index) { return "group/inner/dataset_" + std::to_string(index); };
  const auto values_of = [](const Dims& dims) {
    std::vector<TypeParam> values(static_cast<std::size_t>(element_count(dims)));
    std::iota(values.begin(), values.end(), TypeParam(3));
    if (!values.empty()) values.back() = std::numeric_limits<TypeParam>::max();
    return values;
  };
  {
    Hdf5File file(scratch.path() / "a.h5", Hdf5File::Mode::create);
    for (std::size_t i = 0; i < shapes.size(); ++i)
      file.write(name_of(i), ElementTypeOf<TypeParam>::value, shapes[i], values_of(shapes[i]).data());
    file.close();
  }
  const Hdf5File file(scratch.path() / "a.h5", Hdf5File::Mode::read);
  EXPECT_EQ(file.children("group/inner").size(), shapes.size());
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const DatasetInfo info = file.describe(name_of(i));
    EXPECT_EQ(info.dims, shapes[i]);
    EXPECT_EQ(info.type, ElementTypeOf<TypeParam>::value);
    std::vector<TypeParam> values(static_cast<std::size_t>(element_count(shapes[i])), TypeParam(1));
    file.read(name_of(i), info.type, info.dims, values.data());
    EXPECT_EQ(values, values_of(shapes[i])) << dims_text(shapes[i]);
  }
}

TEST(Hdf5File, AttributesComeBackAndAreReplaced) {
  const ScratchDirectory scratch;
  const std::string long_text =
      std::string(100000, 'x') + "\nzwölf: 十二\n";  // past HDF5's 64 KB of plain attributes
  {
    Hdf5File file(scratch.path() / "a.h5", Hdf5File::Mode::create);
    file.create_group("group/inner");
    file.set_attribute("/", "integer", std::int64_t{5});
    file.set_attribute("/", "integer", std::numeric_limits<std::int64_t>::min());
    file.set_attribute("group/inner", "real", 0.1);
    file.set_attribute("group/inner", "text", long_text);
    file.set_attribute("group/inner", "empty", std::string());
    file.close();
  }
  const Hdf5File file(scratch.path() / "a.h5", Hdf5File::Mode::read);
  EXPECT_EQ(file.integer_attribute("/", "integer"), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(file.real_attribute("group/inner", "real"), 0.1);
  EXPECT_EQ(file.text_attribute("group/inner", "text"), long_text);
  EXPECT_EQ(file.attribute_text("group/inner", "text"), long_text);
  EXPECT_EQ(file.text_attribute("group/inner", "empty"), "");
  EXPECT_EQ(file.attribute_names("group/inner"), (std::vector<std::string>{"empty", "real", "text"}));
  EXPECT_FALSE(file.has_attribute("/", "real"));
  expect_words(sentence_of(Fault::data, [&] { file.integer_attribute("group/inner", "text"); }),
               {"a.h5", "text"});
}

TEST(Hdf5File, NamesAreFoundAndListed) {
  const ScratchDirectory scratch;
  const float one = 1;
  Hdf5File file(scratch.path() / "a.h5", Hdf5File::Mode::create);
  file.write("b/model.layers.0.weight", ElementType::float32, {}, &one);
  file.create_group("a");
  EXPECT_TRUE(file.contains("b/model.layers.0.weight"));
  EXPECT_FALSE(file.contains("b/model.layers.1.weight"));
  EXPECT_FALSE(file.contains("missing/group/name"));
  EXPECT_TRUE(file.is_group("b"));
  EXPECT_FALSE(file.is_group("b/model.layers.0.weight"));
  EXPECT_EQ(file.children("/"), (std::vector<std::string>{"a", "b"}));
}

TEST(Hdf5File, MisuseIsASentence) {
  const ScratchDirectory scratch;
  const std::vector<float> values(6, 1.0f);
  {
    Hdf5File file(scratch.path() / "a.h5", Hdf5File::Mode::create);
    file.write("w", ElementType::float32, {2, 3}, values.data());
    expect_words(sentence_of(Fault::machine,
                             [&] {
                               file.write("w", ElementType::float32, {2, 3}, values.data());
                             }),
                 {"a.h5", "create the dataset w"});
    file.close();
  }
  const Hdf5File file(scratch.path() / "a.h5", Hdf5File::Mode::read);
  std::vector<float> found(6);
  expect_words(sentence_of(Fault::data,
                           [&] {
                             file.read("w", ElementType::float32, {3, 2}, found.data());
                           }),
               {"w", "[2, 3]", "[3, 2]"});
  expect_words(sentence_of(Fault::data,
                           [&] {
                             file.read("w", ElementType::int32, {2, 3}, found.data());
                           }),
               {"float32", "int32"});
  expect_words(sentence_of(Fault::data, [&] { file.describe("v"); }), {"a.h5", "v"});
  expect_words(sentence_of(Fault::data, [&] { Hdf5File(scratch.path() / "b.h5", Hdf5File::Mode::read); }),
               {"b.h5", "No such file"});
  std::ofstream(scratch.path() / "c.h5") << "not HDF5 at all";
  expect_words(sentence_of(Fault::data, [&] { Hdf5File(scratch.path() / "c.h5", Hdf5File::Mode::read); }),
               {"c.h5"});
  expect_words(sentence_of(Fault::machine,
                           [&] { Hdf5File(scratch.path() / "none" / "d.h5", Hdf5File::Mode::create); }),
               {"d.h5", "No such file"});
}

}  // namespace
}  // namespace conclave
