// SPDX-License-Identifier: Apache-2.0
#include "api/news.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace aw::api {

void News::add(uid_t uid, Tell item) {
  Line& line = lines_[uid];
  line.items.push_back(std::move(item));
  // Nothing is left out: whoever makes more than can be told pays for it at once, as everybody would without turns.
  while (line.items.size() > kMostWaiting) (void)tell(uid, line, kMostAtOnce);
}

std::size_t News::tell(uid_t uid, Line& line, std::size_t most) {
  std::size_t told = 0;
  while (!line.items.empty() && told < most) {
    if (!std::exchange(line.begun, true)) {
      line.left = observers_(uid);
      std::reverse(line.left.begin(), line.left.end());
    }
    for (; !line.left.empty() && told < most; ++told) {
      line.items.front()(line.left.back());
      line.left.pop_back();
    }
    if (!line.left.empty()) break;
    line.items.pop_front();
    line.begun = false;
  }
  return told;
}

bool News::take() {
  if (lines_.empty()) return false;
  // The one after the last, round to that one itself.
  auto at = lines_.upper_bound(last_);
  if (at == lines_.end()) at = lines_.begin();
  last_ = at->first;
  (void)tell(at->first, at->second, kMostAtOnce);
  if (at->second.items.empty()) lines_.erase(at);
  return true;
}

void News::flush() {
  for (auto& [uid, line] : lines_) (void)tell(uid, line, std::numeric_limits<std::size_t>::max());
  lines_.clear();
}

}  // namespace aw::api
