#!/usr/bin/env bash
# Prints the table in docs/cuda.md, which a test compares with this output. Each row says what a kernel of a GPU must do
# for one shape and what it does by construction. The last column is the share of the roofline that this leaves it at
# best. Nothing of it is measured.
# Usage: docs/kernel_bounds.sh, with other sizes as NAME=VALUE in the environment (names below).
set -euo pipefail

awk -v sequences="${SEQUENCES:-2}" -v length_="${LENGTH:-4096}" -v hidden="${HIDDEN:-2048}" \
    -v heads="${HEADS:-16}" -v kv_heads="${KV_HEADS:-4}" -v width="${WIDTH:-128}" -v experts="${EXPERTS:-64}" \
    -v top_k="${TOP_K:-8}" -v expert_width="${EXPERT_WIDTH:-1024}" -v vocabulary="${VOCABULARY:-65536}" '
  # An H100 SXM, from its data sheet: memory, bfloat16 on tensor cores and float32 outside. Shared memory gives 128
  # bytes a clock to each of 132 multiprocessors, at the clock of the data sheet.
  BEGIN {
    memory = 3.35e12; tensor = 989e12; plain = 67e12 / 2; shared = 132 * 128 * 1.83e9
    print "| kernel | must move | moves | must compute | computes | at least | held by | share |"
    print "| --- | --- | --- | --- | --- | --- | --- | --- |"
    tokens = sequences * length_; n = tokens * hidden; rows = tokens * top_k; b = 2  # bytes of a bfloat16

    bytes("add", 3 * n * b, 3 * n * b)
    bytes("swiglu, of all experts", 3 * rows * expert_width * b, 3 * rows * expert_width * b)
    bytes("swiglu_backward", 5 * rows * expert_width * b, 5 * rows * expert_width * b)
    bytes("rms_norm", 2 * n * b, 2 * n * b)
    bytes("rms_norm_backward", 3 * n * b, 5 * n * b)
    q = tokens * heads * width; kv = tokens * kv_heads * width
    bytes("rope, of queries", 2 * q * b, 2 * q * b)
    bytes("permute_rows", (n + rows * hidden) * b, 2 * rows * hidden * b)
    bytes("combine_rows", (rows * hidden + n) * b, (rows * hidden + n) * b)
    bytes("cross_entropy_statistics, of 1024 tokens", 1024 * vocabulary * 4, 1024 * vocabulary * 4)
    bytes("adamw, of one expert, float32", 28 * 3 * hidden * expert_width, 28 * 3 * hidden * expert_width)
    product("gemm, tokens x hidden x hidden", tokens, hidden, hidden, 1)
    product("grouped_linear, gate of all experts", rows, expert_width, hidden, experts)
    product("grouped_linear_dweight, the same", expert_width, hidden, rows, experts)

    # These are pairs of a query and a key before it. A warp has 16 queries and takes 32 keys at a time. Among its last
    # keys it computes more pairs than it needs, on average half of 16 + 32.
    pairs = sequences * heads * length_ * (length_ + 1) / 2
    taken = sequences * heads * length_ * (length_ + 48) / 2
    # These are bytes of shared memory for a pair. Tiles of 16 x 16 are 512 bytes, and a warp works on 512 pairs. To
    # multiply rows it loads 3 tiles for 16 columns. To add weighted rows it loads 2, and 2 of weights. Sums go there and
    # back in float32, weights go there in bfloat16, and rows arrive once per block.
    tile = width / 16
    forward = 5 * tile + 2 + 8 + 2 + 128 * width / (8 * 512)
    dquery = 8 * tile + 2 + 16 + 2 + 128 * width / (4 * 512)
    dkey = 10 * tile + 4 + 16 + 4 + 128 * width / (4 * 512)
    # Instructions outside tensor cores are, for a pair, mask 4, scale and exponential 17, and conversion and addressing
    # 5. Forward adds the maximum, the sum and 1/512 of the rescaled sums, backward the difference and product.
    each = 2 * q  # both sides of another side of as many heads
    attention("attention", (2 * q + 2 * kv) * b, (2 * q + each * reads(128)) * b, 4 * width * pairs, 4 * width * taken,
              forward * taken, (30 + width / 32) * taken)
    attention("attention_backward", (4 * q + 4 * kv) * b,
              (5 * q + 4 * kv + 2 * each * reads(64)) * b, 10 * width * pairs,
              14 * width * taken, (dquery + dkey) * taken, 2 * 30 * taken)
  }

  # Blocks of so many rows each see half of the other side. This is how often they read it for each head. Much of that
  # comes from the second-level cache, which this model leaves out.
  function reads(block) { return (length_ / block + 1) / 2 }
  function amount(value, unit) {
    if (value >= 1e12) return sprintf("%.2f T%s", value / 1e12, unit)
    if (value >= 1e9) return sprintf("%.2f G%s", value / 1e9, unit)
    return sprintf("%.0f M%s", value / 1e6, unit)
  }
  function line(name, must, moves, needed, computed, seconds, holder, best,   operations) {
    operations = "| |"
    if (needed) operations = "| " amount(needed, "FLOP") " | " amount(computed, "FLOP")
    printf "| %s | %s | %s %s | %.0f us | %s | %.0f %% |\n", name, amount(must, "B"), amount(moves, "B"), operations,
           seconds * 1e6, holder, 100 * best / seconds
  }
  function bytes(name, must, moves) { line(name, must, moves, 0, 0, moves / memory, "memory", must / memory) }
  function larger(a, c) { return (a > c) ? a : c }
  function product(name, m, columns, k, matrices,   must, needed, best) {
    # All experts together have m rows, or k of them for a gradient of weights.
    must = (m * (k + columns) + matrices * k * columns) * b
    if (name ~ /dweight/) must = (k * (m + columns) + matrices * m * columns) * b
    needed = 2 * m * columns * k
    best = larger(must / memory, needed / tensor)
    line(name, must, must, needed, needed, best, (needed / tensor > must / memory) ? "tensor cores" : "memory", best)
  }
  function attention(name, must, moves, needed, computed, in_shared, instructions,   best, time, holder) {
    best = larger(must / memory, needed / tensor)
    time = computed / tensor; holder = "tensor cores"
    if (moves / memory > time) { time = moves / memory; holder = "memory" }
    if (instructions / plain > time) { time = instructions / plain; holder = "instructions" }
    if (in_shared / shared > time) { time = in_shared / shared; holder = "shared memory" }
    line(name, must, moves, needed, computed, time, holder, best)
  }'
