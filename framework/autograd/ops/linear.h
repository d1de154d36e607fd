// Matrix products with weights laid out [out, in], as Hugging Face stores them.
#pragma once

#include "framework/autograd/tape.h"

namespace conclave {

/// y = x W^T
Variable linear(Tape& tape, const Variable& x,  // [rows, in]
                const Variable& weight);        // [out, in]  ->  [rows, out]

/// y[r] = x[r] + bias for every row r
Variable add_bias(Tape& tape, const Variable& x,  // [rows, width]
                  const Variable& bias);          // [width]  ->  [rows, width]

/// y[r] = x[r] W[e]^T for the rows r of expert e; experts without rows are normal.
Variable grouped_linear(Tape& tape, const Variable& x,  // [rows, in], sorted by expert
                        const Variable& weight,         // [experts, out, in]
                        const RowOffsets& offsets);     // int64 [experts + 1]  ->  [rows, out]

}  // namespace conclave
