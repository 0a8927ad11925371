// SPDX-License-Identifier: Apache-2.0
//
// How the tests of the ledger wait for its thread.
#pragma once

#include <poll.h>

#include <chrono>
#include <functional>

#include "ledger/ledger.h"

namespace aw::ledger {

/// Waits until `holds`, looking again whenever the ledger says that something has changed. For long: a test may have a
/// hundred commits, and each waits for a disk that others write to.
inline bool comes_true(Ledger& ledger, const std::function<bool()>& holds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes{10};
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    pollfd poll{ledger.changed_fd(), POLLIN, 0};
    (void)::poll(&poll, 1, 100);
    ledger.take_changed();
  }
  return true;
}

inline bool becomes_durable(Ledger& ledger) {
  return comes_true(ledger, [&] { return ledger.waiting() == 0 && ledger.healthy(); });
}

}  // namespace aw::ledger
