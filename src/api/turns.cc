// SPDX-License-Identifier: Apache-2.0
#include "api/turns.h"

#include <algorithm>
#include <utility>

namespace aw::api {

bool Turns::add(uid_t uid, const Bounds& bounds, const std::string& client, Pace pace, Deed deed) {
  Line& line = lines_->by_uid[uid];
  line.bounds = bounds;
  if (line.quick.size() + line.slow.size() >= bounds.waiting) return false;
  (pace == Pace::kQuick ? line.quick : line.slow).push_back({++lines_->number, client, std::move(deed)});
  return true;
}

void Turns::go_on(uid_t uid, const std::string& client, Deed deed) {
  lines_->by_uid[uid].quick.push_front({0, client, std::move(deed)});
}

std::deque<Turns::Waiting>* Turns::next_of(Line& line) {
  const bool slow = !line.slow.empty() && line.under_way < line.bounds.under_way;
  if (line.quick.empty()) return slow ? &line.slow : nullptr;
  if (!slow) return &line.quick;
  // In the order in which they came, unless one has to wait.
  return line.slow.front().number < line.quick.front().number ? &line.slow : &line.quick;
}

bool Turns::is_idle(const Line& line) { return line.quick.empty() && line.slow.empty() && line.under_way == 0; }

bool Turns::take() {
  auto& by_uid = lines_->by_uid;
  // From the one after the last, round to that one itself.
  auto at = by_uid.upper_bound(lines_->last);
  for (std::size_t i = 0; i < by_uid.size(); ++i, ++at) {
    if (at == by_uid.end()) at = by_uid.begin();
    std::deque<Waiting>* line = next_of(at->second);
    if (line == nullptr) continue;
    const uid_t uid = lines_->last = at->first;
    const Deed deed = std::move(line->front().deed);
    const bool slow = line == &at->second.slow;
    line->pop_front();
    Place place;
    if (slow) {
      ++at->second.under_way;
      place = Place(this, [lines = std::weak_ptr(lines_), uid](void*) { leave(lines, uid); });
    } else if (is_idle(at->second)) {
      by_uid.erase(at);
    }
    deed(std::move(place));
    return true;
  }
  return false;
}

bool Turns::ready() const {
  return std::any_of(lines_->by_uid.begin(), lines_->by_uid.end(),
                     [](auto& entry) { return next_of(entry.second) != nullptr; });
}

void Turns::drop(const std::string& client) {
  for (auto at = lines_->by_uid.begin(); at != lines_->by_uid.end();) {
    Line& line = at->second;
    for (auto* waiting : {&line.quick, &line.slow}) {
      std::erase_if(*waiting, [&](const Waiting& call) { return call.client == client; });
    }
    at = is_idle(line) ? lines_->by_uid.erase(at) : std::next(at);
  }
}

void Turns::clear() {
  for (auto& [uid, line] : lines_->by_uid) {
    line.quick.clear();
    line.slow.clear();
  }
  std::erase_if(lines_->by_uid, [](const auto& entry) { return is_idle(entry.second); });
}

std::size_t Turns::waiting() const {
  std::size_t count = 0;
  for (const auto& [uid, line] : lines_->by_uid) count += line.quick.size() + line.slow.size();
  return count;
}

void Turns::leave(const std::weak_ptr<Lines>& held, uid_t uid) {
  const auto lines = held.lock();
  if (!lines) return;
  const auto at = lines->by_uid.find(uid);
  --at->second.under_way;  // It is there as long as one is under way.
  if (next_of(at->second) != nullptr) return lines->on_ready();
  if (is_idle(at->second)) lines->by_uid.erase(at);
}

}  // namespace aw::api
