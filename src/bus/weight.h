// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bus/message.h"

namespace aw::bus {

enum class Weight {
  kFits,
  kTooMuch,
  kUnreadable,  ///< an argument can't be read; what comes after it was not looked at
};

/// Whether the arguments of a message have at most `most` bytes, before anything of it is kept: the bus carries 32 MiB.
/// Looks at no more than that, and leaves the message to be read from its beginning.
Weight weigh(const Message& message, std::size_t most);

}  // namespace aw::bus
