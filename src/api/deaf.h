// SPDX-License-Identifier: Apache-2.0
//
// Who does not read what they are sent. dbus-daemon keeps it for them, counts it against us, and reads nothing more
// from us when it is too much; so there is no more for them for a while.
#pragma once

#include <sys/types.h>

#include <map>
#include <set>

#include "base/time.h"

namespace aw::api {

class Deaf {
 public:
  /// More than anybody has who reads.
  static constexpr std::size_t kMostUnread = 4UL << 20U;
  static constexpr Span kFor = std::chrono::minutes{1};
  /// Refusals are not read either.
  static constexpr unsigned kMostRefusals = 100;

  /// `uid` is deaf from now on.
  void add(uid_t uid, Instant now);
  bool contains(uid_t uid, Instant now) const;
  std::set<uid_t> uids(Instant now) const;
  /// Whether one more call of a uid that is deaf is worth an answer.
  bool take_refusal(uid_t uid);

 private:
  struct Entry {
    Instant until;
    unsigned refusals = 0;
  };
  std::map<uid_t, Entry> entries_;
};

}  // namespace aw::api
