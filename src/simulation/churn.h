// SPDX-License-Identifier: Apache-2.0
//
// Hours of registrations and ends in one daemon, to see that it keeps nothing of what is over.
#pragma once

#include <cstddef>

namespace aw::simulation {

/// How much more may be in use in the last third than in the second: what allocators and tables keep in reserve.
inline constexpr std::size_t kChurnSlack = 64 * 1024;

/// What is remembered for a while is all there after some eight hours.
inline constexpr unsigned kLeastChurn = 24;

/// The most heap that was in use, in bytes, in the second and in the last third of the time. What is
/// remembered is forgotten in large pieces, so that single moments can't be compared.
struct Churned {
  std::size_t runs = 0;
  std::size_t second_third = 0;
  std::size_t last_third = 0;

  bool is_flat() const { return last_third <= second_third + kChurnSlack; }
};

/// `hours`: kLeastChurn or more.
Churned churn(unsigned hours);

/// The same with its result on stdout; the exit status.
int simulate_churn(unsigned hours);

}  // namespace aw::simulation
