// SPDX-License-Identifier: Apache-2.0
//
// Many histories.
#pragma once

#include <vector>

#include "simulation/history.h"

namespace aw::simulation {

struct Campaign {
  std::uint64_t first_seed = 1;
  std::uint64_t histories = 1;
  unsigned jobs = 1;
  unsigned steps = Options{}.steps;
};

struct Outcome {
  std::vector<Violation> violations;  ///< by seed
  Tally tally;
};

Outcome run(const Campaign& campaign);

/// What was violated, and how to see it again.
std::string describe(const Violation& violation);
/// What there was of everything.
std::string summary(const Tally& tally);

}  // namespace aw::simulation
