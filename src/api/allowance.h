// SPDX-License-Identifier: Apache-2.0
//
// How often a uid may do what is put on record of a run that goes on. Each such call is an event for good, with a
// command line or labels of some kilobytes: without a bound one uid fills the ledger, and whoever else is in it makes
// room.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>

#include "base/time.h"

namespace aw::api {

class Allowance {
 public:
  static constexpr int kBurst = 100;                             ///< at once, of who has done nothing for a while
  static constexpr Span kEach = std::chrono::milliseconds{200};  ///< after which there is one more

  /// Nothing: it may, and has done it. Otherwise in how long it may.
  std::optional<Span> take(uid_t uid, Instant now);

 private:
  std::map<uid_t, Instant> whole_at_;  ///< when it has all of its burst again, of those who have not
};

}  // namespace aw::api
