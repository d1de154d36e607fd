// Sorting assignments by expert, and moving rows there and back. The sort is stable and every sum has one
// owner and one order: no atomics on activations.
#pragma once

#include "framework/kernels/cuda/reduction.cuh"
#include "framework/kernels/cuda/storage.cuh"

namespace conclave::DIALECT {

/// counts [chunks, experts], zeroed before: how often each expert was chosen in a block's chunk of slots.
KERNEL count_experts_kernel(const std::int32_t* experts, std::int64_t slots, std::int64_t expert_count,
                            std::int32_t* counts, std::int64_t* rows_and_strangers) {
  const std::int64_t slot = first_item();
  if (slot >= slots || experts[slot] < 0) return;
  if (experts[slot] < expert_count)
    atomic_add(counts + block_index() * expert_count + experts[slot], 1);
  else
    atomic_add(rows_and_strangers + 1, std::int64_t{1});
}

/// One block. Turns counts into the row where each chunk's assignments of each expert begin; offsets [experts
/// + 1].
KERNEL place_experts_kernel(std::int32_t* counts, std::int64_t chunks, std::int64_t expert_count,
                            std::int64_t* offsets, std::int64_t* rows_and_strangers) {
  SHARED(std::int64_t, sums, block_threads);
  std::int64_t before = 0;  // rows of experts in earlier rounds of this loop
  for (std::int64_t first = 0; first < expert_count; first += block_size()) {
    const std::int64_t expert = first + thread_index();
    std::int64_t own = 0;
    for (std::int64_t chunk = 0; chunk < chunks && expert < expert_count; ++chunk)
      own += counts[chunk * expert_count + expert];
    // Inclusive prefix sums in log2(threads) rounds (Hillis and Steele).
    sums[thread_index()] = own;
    sync_block();
    for (int reach = 1; reach < block_size(); reach *= 2) {
      const std::int64_t left = thread_index() >= reach ? sums[thread_index() - reach] : 0;
      sync_block();
      sums[thread_index()] += left;
      sync_block();
    }
    std::int64_t row = before + sums[thread_index()] - own;
    if (expert < expert_count) {
      offsets[expert] = row;
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        const std::int32_t count = counts[chunk * expert_count + expert];
        counts[chunk * expert_count + expert] = static_cast<std::int32_t>(row);
        row += count;
      }
    }
    before += sums[block_size() - 1];
    sync_block();
  }
  if (thread_index() == 0) {
    offsets[expert_count] = before;
    rows_and_strangers[0] = before;
  }
}

/// A thread places one slot: after all slots of its chunk with the same expert and a lower index.
KERNEL place_slots_kernel(const std::int32_t* experts, std::int64_t slots, std::int64_t top_k,
                          std::int64_t expert_count, const std::int32_t* first_rows,
                          std::int32_t* row_of_slot, std::int32_t* token_of_row, std::int32_t* slot_of_row) {
  SHARED(std::int32_t, chunk, block_threads);
  const std::int64_t slot = first_item();
  const std::int32_t expert = slot < slots ? experts[slot] : -1;
  chunk[thread_index()] = expert;
  sync_block();
  if (slot >= slots) return;
  std::int32_t row = -1;
  if (expert >= 0) {
    row = first_rows[block_index() * expert_count + expert];
    for (int j = 0; j < thread_index(); ++j) row += chunk[j] == expert ? 1 : 0;
    token_of_row[row] = static_cast<std::int32_t>(slot / top_k);
    slot_of_row[row] = static_cast<std::int32_t>(slot);
  }
  row_of_slot[slot] = row;
}

/// A block copies a row.
template <class T>
KERNEL permute_rows_kernel(const T* x, const std::int32_t* token_of_row, std::int64_t hidden, T* rows) {
  const std::int64_t row = block_index(), token = token_of_row[row];
  for (std::int64_t i = thread_index(); i < hidden; i += block_size())
    rows[row * hidden + i] = x[token * hidden + i];
}

/// A block sums the rows of a token in the order of its slots; weights may be nullptr: all are 1.
template <class T>
KERNEL combine_rows_kernel(const T* rows, const float* weights, const std::int32_t* row_of_slot,
                           std::int64_t top_k, std::int64_t hidden, T* y) {
  const std::int64_t token = block_index();
  for (std::int64_t i = thread_index(); i < hidden; i += block_size()) {
    float sum = 0;
    for (std::int64_t slot = token * top_k; slot < (token + 1) * top_k; ++slot)
      if (const std::int64_t row = row_of_slot[slot]; row >= 0)
        sum += (weights == nullptr ? 1.0f : weights[slot]) * load(rows + row * hidden + i);
    store(y + token * hidden + i, sum);
  }
}

/// A warp takes a slot: drows[row] = weight dy[token], dweights[slot] = rows[row] . dy[token].
template <class T>
KERNEL combine_rows_backward_kernel(const T* rows, const float* weights, const std::int32_t* row_of_slot,
                                    const T* dy, std::int64_t slots, std::int64_t top_k, std::int64_t hidden,
                                    T* drows, float* dweights) {
  const std::int64_t slot = item_of_warp();
  if (slot >= slots) return;
  const std::int64_t row = row_of_slot[slot], token = slot / top_k;
  float dot = 0;
  if (row >= 0) {
    const float weight = weights[slot];
    for (std::int64_t i = lane_index(); i < hidden; i += warp_size) {
      const float gradient = load(dy + token * hidden + i);
      dot += load(rows + row * hidden + i) * gradient;
      store(drows + row * hidden + i, weight * gradient);
    }
  }
  dot = warp_reduce(dot, Sum{});
  if (lane_index() == 0) dweights[slot] = dot;
}

}  // namespace conclave::DIALECT
