// SPDX-License-Identifier: Apache-2.0
#include "api/deaf.h"

namespace aw::api {

void Deaf::add(uid_t uid, Instant now) {
  std::erase_if(entries_, [&](const auto& entry) { return entry.second.until <= now; });
  entries_[uid] = {now + kFor};
}

bool Deaf::contains(uid_t uid, Instant now) const {
  const auto found = entries_.find(uid);
  return found != entries_.end() && now < found->second.until;
}

std::set<uid_t> Deaf::uids(Instant now) const {
  std::set<uid_t> uids;
  for (const auto& [uid, entry] : entries_) {
    if (now < entry.until) uids.insert(uid);
  }
  return uids;
}

bool Deaf::take_refusal(uid_t uid) {
  const auto found = entries_.find(uid);
  return found == entries_.end() || ++found->second.refusals <= kMostRefusals;
}

}  // namespace aw::api
