// Rotary positions against complex rotation, attention against softmax over an explicit mask.
#include <algorithm>
#include <cmath>
#include <complex>

#include "tests/framework/kernels/op_table.h"

namespace conclave::test {
namespace {

void add_rope(std::vector<OpCase>& cases, Size tokens, Size heads, Size width, Size rotary,
              int first_position) {
  constexpr double theta = 10000;
  const Size half = rotary / 2;
  const Values x = draw("x", static_cast<std::int64_t>(tokens * heads * width));
  Values positions(tokens), y = x, back = x;
  for (Size t = 0; t < tokens; ++t) {
    positions[t] = first_position + static_cast<int>((t * 7) % 23);
    for (Size h = 0; h < heads; ++h)
      for (Size i = 0; i < half; ++i) {
        const Size one = (t * heads + h) * width + i, two = one + half;
        const double angle =
            positions[t] / std::pow(theta, static_cast<double>(2 * i) / static_cast<double>(rotary));
        const std::complex<double> pair(x[one], x[two]), turn = std::polar(1.0, angle);
        y[one] = (pair * turn).real(), y[two] = (pair * turn).imag();
        back[one] = (pair / turn).real(), back[two] = (pair / turn).imag();
      }
  }
  const Shape shape{length_of(tokens), length_of(heads), length_of(width)};
  OpCase op{join_text("rope_", tokens, 'x', heads, 'x', width, "_turns_", rotary, "_from_", first_position),
            1.0 + first_position,  // an angle is as wrong as it is large
            [turned = length_of(rotary)](const Kernels& kernels, const Arguments& a) {
              kernels.rope(a["x"], a["positions"], theta, turned, Rotation::forward, a["y"]);
              kernels.rope(a["x"], a["positions"], theta, turned, Rotation::inverse, a["back"]);
            }};
  op.input("x", shape, x).input("positions", {length_of(tokens)}, positions, Type::int32);
  cases.push_back(op.output("y", shape, y).output("back", shape, back));
}

enum class Documents { one, several, padded };

/// The first column each token may look at.
Values document_starts(Size sequences, Size length, Documents documents) {
  Values starts;
  for (Size s = 0; s < sequences; ++s) {
    Size start = 0;
    for (Size t = 0; t < length; ++t) {
      if (documents != Documents::one && (t * 31 + s * 17) % 29 == 5) start = t;
      // Padding at the end, and here and there: such a row looks at itself.
      const bool padding = documents == Documents::padded && (t + 1 > length - length / 4 || t % 13 == 4);
      starts.push_back(static_cast<double>(padding ? t : start));
    }
  }
  return starts;
}

struct Attention {
  Size sequences, length, heads, kv_heads, width;
  Size query(Size s, Size t, Size h) const { return ((s * length + t) * heads + h) * width; }
  Size key(Size s, Size t, Size h) const {
    return ((s * length + t) * kv_heads + h * kv_heads / heads) * width;
  }
  std::int64_t queries() const { return static_cast<std::int64_t>(sequences * length * heads * width); }
  std::int64_t keys() const { return static_cast<std::int64_t>(sequences * length * kv_heads * width); }
};

double dot(const Values& a, Size a_at, const Values& b, Size b_at, Size count) {
  double sum = 0;
  for (Size i = 0; i < count; ++i) sum += a[a_at + i] * b[b_at + i];
  return sum;
}

void add_attention(std::vector<OpCase>& cases, const Attention& z, Documents documents) {
  const double scale = 1 / std::sqrt(static_cast<double>(z.width));
  const Values q = draw("q", z.queries(), 1.5), k = draw("k", z.keys(), 1.5), v = draw("v", z.keys());
  const Values dout = draw("dout", z.queries()), starts = document_starts(z.sequences, z.length, documents);
  Values out(q.size()), lse(z.sequences * z.heads * z.length), dq(q.size()), dk(k.size()), dv(v.size());
  for (Size s = 0; s < z.sequences; ++s)
    for (Size h = 0; h < z.heads; ++h)
      for (Size t = 0; t < z.length; ++t) {
        const Size at = z.query(s, t, h);
        Values score(z.length), p(z.length), dp(z.length);
        const auto seen = [&](Size c) {
          return c <= t && static_cast<double>(c) >= starts[s * z.length + t];
        };
        double total = 0, mean = 0;
        for (Size c = 0; c < z.length; ++c) {
          score[c] = scale * dot(q, at, k, z.key(s, c, h), z.width);
          if (seen(c)) total += std::exp(score[c]);
        }
        for (Size c = 0; c < z.length; ++c) {
          p[c] = seen(c) ? std::exp(score[c]) / total : 0;
          dp[c] = dot(dout, at, v, z.key(s, c, h), z.width);
          mean += p[c] * dp[c];
        }
        lse[(s * z.heads + h) * z.length + t] = std::log(total);
        for (Size c = 0; c < z.length; ++c)
          for (Size i = 0; i < z.width; ++i) {
            const Size key = z.key(s, c, h) + i;
            const double dscore = scale * p[c] * (dp[c] - mean);
            out[at + i] += p[c] * v[key];
            dv[key] += p[c] * dout[at + i];
            dq[at + i] += dscore * k[key];
            dk[key] += dscore * q[at + i];
          }
      }
  const auto sized = [&](Size heads) {
    return Shape{static_cast<std::int64_t>(z.sequences), static_cast<std::int64_t>(z.length),
                 static_cast<std::int64_t>(heads * z.width)};
  };
  const Shape queries = sized(z.heads), keys = sized(z.kv_heads),
              rows{queries[0], static_cast<std::int64_t>(z.heads), queries[1]};
  const std::int64_t width = static_cast<std::int64_t>(z.width);
  const char* names[] = {"one", "several", "padded"};
  OpCase op{join_text("attention_", z.sequences, 'x', z.length, "_heads_", z.heads, "_of_", z.kv_heads,
                      "_width_", z.width, "_", names[static_cast<int>(documents)]),
            static_cast<double>(z.length + z.width), [=](const Kernels& kernels, const Arguments& a) {
              kernels.attention(a["q"], a["k"], a["v"], a["starts"], width, scale, a["out"], a["lse"]);
              kernels.attention_backward(a["q"], a["k"], a["v"], a["starts"], width, scale, a["out"],
                                         a["lse"], a["dout"], a["dq"], a["dk"], a["dv"]);
            }};
  op.least_scale = 1;  // dscore is a difference of numbers of this size
  op.input("q", queries, q).input("k", keys, k).input("v", keys, v).input("dout", queries, dout);
  op.input("starts", {queries[0], queries[1]}, starts, Type::int32);
  op.output("out", queries, out).output("lse", rows, lse, Type::sums);
  op.output("dv", keys, dv).output("dq", queries, dq).output("dk", keys, dk);
  for (Slot& slot : op.slots)
    if (slot.name == "dq" || slot.name == "dk") slot.roundings = 2;  // of out: dscore has out . dout in it
  cases.push_back(op);
}

}  // namespace

std::vector<OpCase> attention_cases() {
  std::vector<OpCase> cases;
  add_rope(cases, 0, 2, 4, 4, 0);
  add_rope(cases, 1, 1, 2, 2, 0);
  add_rope(cases, 13, 3, 10, 10, 0);
  add_rope(cases, 65, 2, 64, 64, 1000);
  // Only the front of each head turns.
  add_rope(cases, 13, 3, 10, 4, 0);
  add_rope(cases, 65, 2, 64, 32, 1000);
  // The block of queries is 64.
  for (const Size length : {1, 63, 64, 65, 130})
    for (const Documents documents : {Documents::one, Documents::several, Documents::padded})
      for (const Size kv_heads : {4, 2, 1}) add_attention(cases, {2, length, 4, kv_heads, 8}, documents);
  add_attention(cases, {0, 5, 2, 1, 4}, Documents::one);
  add_attention(cases, {1, 67, 3, 1, 1}, Documents::several);
  add_attention(cases, {3, 7, 1, 1, 13}, Documents::padded);
  // On a GPU: rows by 32 and 16, columns by 8; widths to 64, to 128 and beyond take different kernels.
  for (const Size length : {31, 32, 33, 49}) add_attention(cases, {1, length, 2, 1, 9}, Documents::several);
  for (const Size width : {64, 65, 128, 129, 256}) add_attention(cases, {1, 5, 1, 1, width}, Documents::one);
  add_attention(cases, {2, 70, 4, 2, 128}, Documents::several);
  // In bfloat16 on tensor cores: a warp has 16 rows and walks by 32, a block has 32 (emulated), 64 or 128.
  for (const Size length : {1, 15, 17, 33, 64, 129})
    for (const Documents documents : {Documents::one, Documents::several, Documents::padded})
      add_attention(cases, {1, length, 2, 1, 64}, documents);
  add_attention(cases, {1, 70, 1, 1, 64}, Documents::one);
  add_attention(cases, {1, 97, 1, 1, 128}, Documents::one);  // four steps: each of the two stages twice
  add_attention(cases, {2, 65, 4, 2, 64}, Documents::several);
  add_attention(cases, {1, 127, 2, 2, 128}, Documents::padded);
  add_attention(cases, {0, 5, 2, 1, 64}, Documents::one);
  return cases;
}

}  // namespace conclave::test
