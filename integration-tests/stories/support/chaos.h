// SPDX-License-Identifier: Apache-2.0
//
// What the stories of a bad day share: their size, and what is left when they are over.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace aw::stories {

/// A number from the environment, where it has one.
long number_from_environment(const char* name, long otherwise);

/// `full` with AW_CHAOS=full, else `small`.
bool chaos_is_full();
int chaos_size(int small, int full);

/// Takes as many descriptors as there may be: whoever has thousands of processes has one for each.
bool allow_many_descriptors();

/// AW_SEED, or one of its own.
std::uint64_t chaos_seed();

/// Slices and scopes of runs that systemd knows of, asked without the bus.
std::vector<std::string> units_of_runs();
/// Whether the daemon's service is active, asked without the bus.
bool unit_is_active();

}  // namespace aw::stories
