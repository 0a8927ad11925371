// SPDX-License-Identifier: Apache-2.0
//
// How the tests of the ledger wait for its thread.
#pragma once

#include <poll.h>

#include <functional>

#include "ledger/ledger.h"
#include "testing/patience.h"

namespace aw::ledger {

/// Waits until it holds, looking again whenever the ledger says that something has changed. Each of a test's commits
/// waits for a disk that others write to.
inline bool comes_true(Ledger& ledger, const std::function<bool()>& holds) {
  return testing::comes_true(holds, [&] {
    pollfd poll{ledger.changed_fd(), POLLIN, 0};
    (void)::poll(&poll, 1, 100);
    ledger.take_changed();
  });
}

inline bool becomes_durable(Ledger& ledger) {
  return comes_true(ledger, [&] { return ledger.waiting() == 0 && ledger.healthy(); });
}

}  // namespace aw::ledger
