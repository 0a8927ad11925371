// SPDX-License-Identifier: Apache-2.0
//
// Memory that is there for the moment when there is no more: where strict accounting (vm.overcommit_memory=2) or a
// limit of the address space refuses operator new, it is given back, and what is being done goes on with it. It is
// locked where the rest of the process is, so that it is memory, and not the promise of some.
#pragma once

#include "base/bytes.h"

namespace aw {

/// From now on. Touched as a whole, once.
void keep_memory_reserve(Bytes size);

/// What is left of it: all or nothing.
Bytes memory_reserve() noexcept;

/// To be called now and then: if the reserve was given back, sets the same aside again, as soon as there is as much.
/// True if it had been given back, once each time.
bool renew_memory_reserve() noexcept;

}  // namespace aw
