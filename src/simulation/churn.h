// SPDX-License-Identifier: Apache-2.0
//
// Hours of registrations and ends in one daemon, to see that it keeps nothing of what is over.
#pragma once

#include <cstddef>

namespace aw::simulation {

/// How much more may be in use after the last quarter than after the first: what allocators and tables keep in reserve.
inline constexpr std::size_t kChurnSlack = 64 * 1024;

struct Churned {
  std::size_t runs = 0;
  std::size_t after_quarter = 0;  ///< heap in use, in bytes
  std::size_t at_end = 0;

  bool is_flat() const { return at_end <= after_quarter + kChurnSlack; }
};

Churned churn(unsigned hours);

/// The same with its result on stdout; the exit status.
int simulate_churn(unsigned hours);

}  // namespace aw::simulation
