// Rotary positions against complex rotation, attention against softmax over an explicit mask.
#include <algorithm>
#include <cmath>
#include <complex>

#include "framework/kernels/rope.h"
#include "tests/framework/kernels/op_table.h"

namespace conclave::test {
namespace {

void add_rope(std::vector<OpCase>& cases, Size tokens, Size heads, Size width, Size rotary,
              int first_position) {
  const RopeFrequencies frequencies{.theta = 10000};
  const Size half = rotary / 2;
  const Values x = draw("x", static_cast<std::int64_t>(tokens * heads * width));
  Values positions(tokens), y = x, back = x;
  for (Size t = 0; t < tokens; ++t) {
    positions[t] = first_position + static_cast<int>((t * 7) % 23);
    for (Size h = 0; h < heads; ++h)
      for (Size i = 0; i < half; ++i) {
        const Size one = (t * heads + h) * width + i, two = one + half;
        const double angle = positions[t] / std::pow(frequencies.theta, static_cast<double>(2 * i) /
                                                                            static_cast<double>(rotary));
        const std::complex<double> pair(x[one], x[two]), turn = std::polar(1.0, angle);
        y[one] = (pair * turn).real(), y[two] = (pair * turn).imag();
        back[one] = (pair / turn).real(), back[two] = (pair / turn).imag();
      }
  }
  const Shape shape{length_of(tokens), length_of(heads), length_of(width)};
  OpCase op{join_text("rope_", tokens, 'x', heads, 'x', width, "_turns_", rotary, "_from_", first_position),
            1.0 + first_position,  // an angle is as wrong as it is large
            [frequencies, turned = length_of(rotary)](const Kernels& kernels, const Arguments& a) {
              const auto& rope = kernels.family<RopeKernels>().rope;
              rope(a["x"], a["positions"], frequencies, turned, Rotation::forward, a["y"]);
              rope(a["x"], a["positions"], frequencies, turned, Rotation::inverse, a["back"]);
            }};
  op.input("x", shape, x).input("positions", {length_of(tokens)}, positions, Type::int32);
  cases.push_back(op.output("y", shape, y).output("back", shape, back));
}

/// Which keys are seen. A query stands at a column of the keys, so that the last one stands at the last key.
enum class See {
  one,        // a document: all keys up to the own column
  several,    // of several documents
  padded,     // with padding among them, which looks at itself
  window,     // the own column and six before it
  past,       // keys that end before the own column; the first queries see none
  ahead,      // keys after the own column
  scattered,  // ranges in no order, some of them empty
  nothing     // empty ranges alone
};
const char* name_of(See see) {
  static const char* const names[] = {"one",  "several", "padded",    "window",
                                      "past", "ahead",   "scattered", "nothing"};
  return names[static_cast<int>(see)];
}

struct Attention {
  Size sequences, queries, heads, kv_heads, width, value_width = width, keys = queries;

  Size query(Size s, Size t, Size h) const { return ((s * queries + t) * heads + h) * width; }
  Size out(Size s, Size t, Size h) const { return ((s * queries + t) * heads + h) * value_width; }
  Size key(Size s, Size t, Size h) const {
    return ((s * keys + t) * kv_heads + h * kv_heads / heads) * width;
  }
  Size value(Size s, Size t, Size h) const {
    return ((s * keys + t) * kv_heads + h * kv_heads / heads) * value_width;
  }
  std::string name() const {
    std::string text = join_text("attention_", sequences, 'x', queries, "_heads_", heads, "_of_", kv_heads,
                                 "_width_", width);
    if (value_width != width) text += join_text("_values_", value_width);
    if (keys != queries) text += join_text("_keys_", keys);
    return text;
  }
};

struct Ranges {
  Values first, last;
};

Ranges ranges_of(const Attention& z, See see) {
  Ranges ranges;
  for (Size s = 0; s < z.sequences; ++s) {
    int start = 0;
    for (Size t = 0; t < z.queries; ++t) {
      const int keys = static_cast<int>(z.keys),
                column = static_cast<int>(t + z.keys) - static_cast<int>(z.queries);
      if ((t * 31 + s * 17) % 29 == 5) start = column;
      int first = 0, last = column;
      const bool padding = t + 1 > z.queries - z.queries / 4 || t % 13 == 4;
      switch (see) {
        case See::one:
          break;
        case See::several:
          first = start;
          break;
        case See::padded:
          first = padding ? column : start;
          break;
        case See::window:
          first = std::max(0, column - 6);
          break;
        case See::past:
          first = std::max(0, column - 40), last = column - 3;
          break;
        case See::ahead:
          first = column, last = std::min(keys - 1, column + 9);
          break;
        case See::scattered:
          first = static_cast<int>(t * 37 + s * 5) % keys;
          last = std::min(keys - 1, first + static_cast<int>(t * 11) % 19 - 4);
          break;
        case See::nothing:
          first = 1, last = t % 2 == 0 ? 0 : -1;
          break;
      }
      ranges.first.push_back(first);
      ranges.last.push_back(last);
    }
  }
  return ranges;
}

double dot(const Values& a, Size a_at, const Values& b, Size b_at, Size count) {
  double sum = 0;
  for (Size i = 0; i < count; ++i) sum += a[a_at + i] * b[b_at + i];
  return sum;
}

void add_attention(std::vector<OpCase>& cases, const Attention& z, See see) {
  const double scale = 1 / std::sqrt(static_cast<double>(z.width));
  const auto sized = [&](Size rows, Size heads, Size width) {
    return Shape{length_of(z.sequences), length_of(rows), length_of(heads * width)};
  };
  const Shape queries = sized(z.queries, z.heads, z.width), keys = sized(z.keys, z.kv_heads, z.width),
              values = sized(z.keys, z.kv_heads, z.value_width),
              outs = sized(z.queries, z.heads, z.value_width),
              sums{length_of(z.sequences), length_of(z.heads), length_of(z.queries)},
              places{length_of(z.sequences), length_of(z.queries)};
  const Values q = draw("q", queries.elements(), 1.5), k = draw("k", keys.elements(), 1.5),
               v = draw("v", values.elements()), dout = draw("dout", outs.elements());
  const Ranges ranges = ranges_of(z, see);
  Values out(dout.size()), lse(z.sequences * z.heads * z.queries), dq(q.size()), dk(k.size()), dv(v.size());
  for (Size s = 0; s < z.sequences; ++s)
    for (Size h = 0; h < z.heads; ++h)
      for (Size t = 0; t < z.queries; ++t) {
        const Size at = z.query(s, t, h), out_at = z.out(s, t, h);
        Values score(z.keys), p(z.keys), dp(z.keys);
        const auto seen = [&](Size c) {
          const auto column = static_cast<double>(c);
          return ranges.first[s * z.queries + t] <= column && column <= ranges.last[s * z.queries + t];
        };
        double total = 0, mean = 0;
        for (Size c = 0; c < z.keys; ++c) {
          score[c] = scale * dot(q, at, k, z.key(s, c, h), z.width);
          if (seen(c)) total += std::exp(score[c]);
        }
        for (Size c = 0; c < z.keys; ++c) {
          p[c] = seen(c) ? std::exp(score[c]) / total : 0;
          dp[c] = dot(dout, out_at, v, z.value(s, c, h), z.value_width);
          mean += p[c] * dp[c];
        }
        lse[(s * z.heads + h) * z.queries + t] = std::log(total);  // of no key: -infinity
        for (Size c = 0; c < z.keys; ++c) {
          for (Size i = 0; i < z.value_width; ++i) {
            out[out_at + i] += p[c] * v[z.value(s, c, h) + i];
            dv[z.value(s, c, h) + i] += p[c] * dout[out_at + i];
          }
          const double dscore = scale * p[c] * (dp[c] - mean);
          for (Size i = 0; i < z.width; ++i) {
            dq[at + i] += dscore * k[z.key(s, c, h) + i];
            dk[z.key(s, c, h) + i] += dscore * q[at + i];
          }
        }
      }
  OpCase op{z.name() + "_" + name_of(see), static_cast<double>(z.keys + std::max(z.width, z.value_width)),
            [=, width = length_of(z.width)](const Kernels& kernels, const Arguments& a) {
              const KeyRanges seen{a["first"], a["last"]};
              kernels.attention(a["q"], a["k"], a["v"], seen, width, scale, a["out"], a["lse"]);
              kernels.attention_backward(a["q"], a["k"], a["v"], seen, width, scale, a["out"], a["lse"],
                                         a["dout"], a["dq"], a["dk"], a["dv"]);
            }};
  op.least_scale = 1;  // dscore is a difference of numbers of this size
  op.input("q", queries, q).input("k", keys, k).input("v", values, v).input("dout", outs, dout);
  op.input("first", places, ranges.first, Type::int32).input("last", places, ranges.last, Type::int32);
  op.output("out", outs, out).output("lse", sums, lse, Type::sums);
  op.output("dv", values, dv).output("dq", queries, dq).output("dk", keys, dk);
  for (Slot& slot : op.slots) {
    if (slot.name == "dq" || slot.name == "dk") slot.roundings = 2;  // of out: dscore has out . dout in it
    if (slot.name == "dv") slot.roundings = 1;  // of the weights on tensor cores, few of them in a window
  }
  cases.push_back(op);
}

void add_causal_attention(std::vector<OpCase>& cases) {
  // The block of queries is 64.
  for (const Size length : {1, 63, 64, 65, 130})
    for (const See see : {See::one, See::several, See::padded})
      for (const Size kv_heads : {4, 2, 1}) add_attention(cases, {2, length, 4, kv_heads, 8}, see);
  add_attention(cases, {0, 5, 2, 1, 4}, See::one);
  add_attention(cases, {1, 67, 3, 1, 1}, See::several);
  add_attention(cases, {3, 7, 1, 1, 13}, See::padded);
  // On a GPU: rows by 32 and 16, columns by 8; widths to 64, to 128 and beyond take different kernels.
  for (const Size length : {31, 32, 33, 49}) add_attention(cases, {1, length, 2, 1, 9}, See::several);
  for (const Size width : {64, 65, 128, 129, 256}) add_attention(cases, {1, 5, 1, 1, width}, See::one);
  add_attention(cases, {2, 70, 4, 2, 128}, See::several);
  // In bfloat16 on tensor cores: a warp has 16 rows and walks by 32, a block has 32 (emulated), 64 or 128.
  for (const Size length : {1, 15, 17, 33, 64, 129})
    for (const See see : {See::one, See::several, See::padded})
      add_attention(cases, {1, length, 2, 1, 64}, see);
  add_attention(cases, {1, 70, 1, 1, 64}, See::one);
  add_attention(cases, {1, 97, 1, 1, 128}, See::one);  // four steps: each of the two stages twice
  add_attention(cases, {2, 65, 4, 2, 64}, See::several);
  add_attention(cases, {1, 127, 2, 2, 128}, See::padded);
  add_attention(cases, {0, 5, 2, 1, 64}, See::one);
}

/// Ranges that no causal mask has, values of another width, and another number of keys than of queries.
void add_ranged_attention(std::vector<OpCase>& cases) {
  for (const See see : {See::window, See::past, See::ahead, See::scattered, See::nothing}) {
    for (const Size length : {1, 33, 130}) {
      add_attention(cases, {2, length, 4, 2, 8}, see);
      add_attention(cases, {1, length, 2, 1, 64}, see);
    }
    add_attention(cases, {2, 70, 2, 1, 12, 5, 150}, see);
    add_attention(cases, {1, 97, 1, 1, 128, 128, 130}, see);
  }
  // One key block of 32 that nobody sees lies between others; queries of whole blocks of 64 see nothing.
  add_attention(cases, {1, 200, 2, 1, 4}, See::past);
  for (const Size keys : {8, 65, 130}) add_attention(cases, {2, 7, 4, 2, 8, 8, keys}, See::several);
  add_attention(cases, {1, 40, 2, 1, 64, 64, 129}, See::one);
  // One query, as in generation.
  for (const Size keys : {1, 2, 130})
    for (const See see : {See::several, See::window, See::nothing})
      add_attention(cases, {3, 1, 4, 2, 8, 13, keys}, see);
  add_attention(cases, {1, 66, 2, 1, 8, 8, 3}, See::scattered);  // fewer keys than queries
  for (const Size value_width : {1, 5, 13}) add_attention(cases, {2, 65, 4, 2, 8, value_width}, See::several);
  add_attention(cases, {1, 20, 2, 1, 64, 128}, See::one);
  add_attention(cases, {1, 20, 2, 1, 192, 128}, See::window);
  add_attention(cases, {1, 9, 1, 1, 7, 256}, See::padded);
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
  add_causal_attention(cases);
  add_ranged_attention(cases);
  return cases;
}

}  // namespace conclave::test
