// Shards and their index: tensors cut over files appear whole, to this program, to h5dump and to h5py, from
// any working directory; what is missing reads as NaN; damage is named by dataset.
#include "framework/store/shard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "framework/store/checkpoint_file.h"
#include "framework/store/checkpoint_protocol.h"
#include "tests/framework/store/saved_checkpoint.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

/// [4, 6] of floats 0, 1, 2, ... under model/w, cut at flat element 10 over two ranks; [8] of doubles that
/// rank 1 writes alone, and a tensor that nobody writes.
std::vector<std::vector<Piece>> two_ranks() {
  const Dims w = {4, 6};
  return {{{"model/w", ElementType::float32, w, boxes_of_range(w, 0, 10)},
           {"state/s", ElementType::float64, {8}, {}},
           {"optimizer/moment1/frozen", ElementType::float32, {3}, {}}},
          {{"model/w", ElementType::float32, w, boxes_of_range(w, 10, 14)},
           {"state/s", ElementType::float64, {8}, boxes_of_range({8}, 0, 8)}}};
}

fs::path save_two_ranks(const fs::path& checkpoints, std::int64_t step) {
  const auto pieces = two_ranks();
  begin_checkpoint(checkpoints, step);
  std::vector<FileEntry> files;
  float next = 0;
  for (std::size_t rank = 0; rank < 2; ++rank) {
    ShardImage shard(pieces[rank]);
    for (std::int64_t i = 0; i < pieces[rank][0].elements(); ++i)
      static_cast<float*>(shard.data(0))[i] = next++;
    if (rank == 1)
      for (int i = 0; i < 8; ++i) static_cast<double*>(shard.data(1))[i] = 0.5 * i;
    files.push_back(write_shard(checkpoints, step, static_cast<std::int64_t>(rank), shard));
  }
  Attributes attributes = own_attributes(step);
  attributes["recipe"] = std::string("name: two\n");
  attributes["share"] = 0.25;
  files.push_back(
      write_checkpoint_file(checkpoints, step, index_name, compose_index(pieces, attributes).bytes()));
  return commit_checkpoint(checkpoints, step, files);
}

std::vector<float> counting(std::size_t elements) {
  std::vector<float> values(elements);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

std::string output_of(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  std::string output;
  char block[4096];
  while (const std::size_t count = std::fread(block, 1, sizeof block, pipe)) output.append(block, count);
  ::pclose(pipe);
  return output;
}

TEST(Shard, PiecesSurviveAsText) {
  for (const std::vector<Piece>& pieces : two_ranks()) EXPECT_EQ(pieces_from_text(to_text(pieces)), pieces);
  EXPECT_TRUE(pieces_from_text("").empty());
  EXPECT_THROW(pieces_from_text("model/w 0 2 4"), Error);
}

TEST(Shard, TheIndexShowsWholeTensors) {
  const ScratchDirectory scratch;
  const fs::path moved = scratch.path() / "moved";
  fs::rename(save_two_ranks(scratch.path(), 3), moved);  // a directory may be carried elsewhere
  const CheckpointReader reader(moved);
  EXPECT_EQ(reader.step(), 3);
  EXPECT_EQ(reader.names(), (std::vector<std::string>{"model/w", "optimizer/moment1/frozen", "state/s"}));
  EXPECT_EQ(reader.describe("model/w").dims, (Dims{4, 6}));
  EXPECT_EQ(reader.read_all<float>("model/w"), counting(24));
  EXPECT_EQ(reader.read_all<float>("optimizer/moment1/frozen"), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(reader.read_all<double>("state/s")[7], 3.5);
  // Boxes across the cut, and within one shard.
  std::vector<float> box(4);
  reader.read_box("model/w", ElementType::float32, {{1, 3}, {2, 2}}, box.data());
  EXPECT_EQ(box, (std::vector<float>{9, 10, 15, 16}));
  reader.read_box("model/w", ElementType::float32, {{0, 0}, {2, 2}}, box.data());
  EXPECT_EQ(box, (std::vector<float>{0, 1, 6, 7}));
  sentence_of(Fault::data, [&] {
    reader.read_box("model/w", ElementType::float32, {{3, 5}, {1, 2}}, box.data());
  });
  sentence_of(Fault::data, [&] {
    reader.read_box("model/w", ElementType::float64, {{0, 0}, {1, 1}}, box.data());
  });
}

TEST(Shard, AMissingShardReadsAsNaNWhichIsWhyTheManifestIsAskedFirst) {
  const ScratchDirectory scratch;
  const fs::path path = save_two_ranks(scratch.path(), 3);
  fs::remove(path / "rank-00001.h5");
  expect_words(sentence_of(Fault::data, [&] { CheckpointReader{path}; }), {"rank-00001.h5"});
  const Hdf5File index(path / "index.h5", Hdf5File::Mode::read);
  std::vector<float> values(24);
  index.read("model/w", ElementType::float32, index.describe("model/w").dims, values.data());
  EXPECT_EQ(values[9], 9);
  for (std::size_t i = 10; i < 24; ++i) EXPECT_TRUE(std::isnan(values[i])) << i;
  // One that is lost after everything was verified is named too, and not taken for a run that went wrong.
  const CheckpointReader reader(path, Verify::nothing);
  expect_words(sentence_of(Fault::data, [&] { reader.read_all<float>("model/w"); }), {"rank-00001.h5"});
}

TEST(Shard, DamageIsNamedByDataset) {
  const ScratchDirectory scratch;
  const fs::path path = save_two_ranks(scratch.path(), 3), shard = path / "rank-00001.h5";
  EXPECT_EQ(damaged_pieces(shard), "");
  const std::vector<char> content = [&] {
    std::ifstream file(shard, std::ios::binary);
    return std::vector<char>(std::istreambuf_iterator<char>(file), {});
  }();
  const float marker = 17;
  const auto found = std::search(content.begin(), content.end(), reinterpret_cast<const char*>(&marker),
                                 reinterpret_cast<const char*>(&marker) + sizeof marker);
  ASSERT_NE(found, content.end());
  flip_byte(shard, static_cast<std::uintmax_t>(found - content.begin()));
  const std::string sentence = sentence_of(Fault::data, [&] { CheckpointReader{path}; });
  expect_words(sentence, {"step-00000003", "rank-00001.h5 has checksum", "expected", "In it model/w has"});
  EXPECT_EQ(sentence.find("state/s"), std::string::npos) << sentence;
  flip_byte(shard, 3);  // in the table: it cannot be trusted, and only the file is named
  EXPECT_EQ(damaged_pieces(shard), "");
  expect_words(sentence_of(Fault::data, [&] { CheckpointReader{path}; }), {"rank-00001.h5 has checksum"});
}

TEST(Shard, ElementsWrittenTwiceOrNotAtAllAreABug) {
  auto pieces = two_ranks();
  pieces[1][0].boxes = boxes_of_range({4, 6}, 11, 13);
  expect_words(sentence_of(Fault::internal, [&] { compose_index(pieces, {}); }), {"23 elements of model/w"});
  pieces[1][0].boxes = boxes_of_range({4, 6}, 9, 15);
  expect_words(sentence_of(Fault::internal, [&] { compose_index(pieces, {}); }), {"25 elements of model/w"});
}

TEST(Shard, AMissingPartOfALargeImageIsNoSurprise) {
  // Large enough for the image to have grown many times while HDF5 laid it out.
  std::vector<Piece> pieces;
  for (int i = 0; i < 300; ++i)
    pieces.push_back({"model/layer." + std::to_string(i),
                      ElementType::float32,
                      {100, 37},
                      boxes_of_range({100, 37}, 0, 3700)});
  ShardImage shard(pieces);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::vector<float> values(3700, static_cast<float>(i));
    std::memcpy(shard.data(i), values.data(), values.size() * sizeof(float));
  }
  const ScratchDirectory scratch;
  begin_checkpoint(scratch.path(), 1);
  const FileEntry shard_file = write_shard(scratch.path(), 1, 0, shard);
  const FileEntry index_file = write_checkpoint_file(scratch.path(), 1, index_name,
                                                     compose_index({pieces}, own_attributes(1)).bytes());
  const CheckpointReader reader(commit_checkpoint(scratch.path(), 1, {shard_file, index_file}));
  for (int i = 0; i < 300; ++i)
    EXPECT_EQ(reader.read_all<float>("model/layer." + std::to_string(i)),
              std::vector<float>(3700, static_cast<float>(i)));
}

TEST(Shard, H5dumpReadsTheIndex) {
  if (std::system("command -v h5dump >/dev/null") != 0)
    GTEST_SKIP() << "h5dump is not installed (hdf5-tools)";
  const ScratchDirectory scratch;
  const fs::path path = save_two_ranks(scratch.path(), 3);
  const std::string dump = output_of("cd / && h5dump -d /model/w " + (path / "index.h5").string());
  expect_words(dump, {"SIMPLE { ( 4, 6 )", "(1,0): 6, 7, 8, 9, 10, 11", "(3,0): 18, 19, 20, 21, 22, 23"});
  expect_words(output_of("h5dump -A " + (path / "index.h5").string()),
               {"\"recipe\"", "name: two", "\"step\""});
}

TEST(Shard, H5pyReadsTheIndex) {
  std::string python;
  for (const char* candidate : {"python3", "/usr/bin/python3"})
    if (python.empty() && std::system(join_text(candidate, " -c 'import h5py' 2>/dev/null").c_str()) == 0)
      python = candidate;
  if (python.empty()) GTEST_SKIP() << "no python3 with h5py is installed (python3-h5py)";
  const ScratchDirectory scratch;
  const fs::path path = save_two_ranks(scratch.path(), 3);
  std::ofstream(scratch.path() / "read.py")
      << "import h5py, sys\n"
         "f = h5py.File(sys.argv[1], 'r')\n"
         "w = f['model/w'][...]\n"
         "print(w.shape, w.dtype, w.ravel().tolist() == list(range(24)), w[1:3, 3:5].tolist())\n"
         "print(sorted(f), f['state/s'][...].tolist(), f['optimizer/moment1/frozen'][...].tolist())\n"
         "print(f.attrs['step'], f.attrs['share'], repr(f.attrs['recipe']))\n";
  const std::string output = output_of("cd / && " + python + " " + (scratch.path() / "read.py").string() +
                                       " " + (path / "index.h5").string());
  expect_words(output, {"(4, 6) float32 True [[9.0, 10.0], [15.0, 16.0]]", "['model', 'optimizer', 'state']",
                        "3.0, 3.5] [0.0, 0.0, 0.0]", "3 0.25 'name: two\\n'"});
}

}  // namespace
}  // namespace conclave
