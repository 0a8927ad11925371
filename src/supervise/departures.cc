// SPDX-License-Identifier: Apache-2.0
#include "supervise/departures.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace aw::supervise {

void Departures::add(uid_t uid, std::string slice) { lines_[uid].slices.push_back(std::move(slice)); }

void Departures::begin(Line& line) {
  ++line.under_way;
  ++under_way_;
}

std::optional<Departures::Departure> Departures::next() {
  if (under_way_ >= kMostOfAll) return std::nullopt;
  // From the one after the last, round to that one itself.
  auto at = lines_.upper_bound(last_);
  for (std::size_t i = 0; i < lines_.size(); ++i, ++at) {
    if (at == lines_.end()) at = lines_.begin();
    Line& line = at->second;
    if (line.slices.empty() || line.under_way >= kMostOfOne) continue;
    last_ = at->first;
    Departure departure{at->first, std::move(line.slices.front())};
    line.slices.pop_front();
    begin(line);
    return departure;
  }
  return std::nullopt;
}

std::optional<Departures::Departure> Departures::take(const std::string& slice) {
  for (auto& [uid, line] : lines_) {
    const auto found = std::find(line.slices.begin(), line.slices.end(), slice);
    if (found == line.slices.end()) continue;
    line.slices.erase(found);
    begin(line);
    return Departure{uid, slice};
  }
  return std::nullopt;
}

void Departures::left(uid_t uid) {
  const auto line = lines_.find(uid);
  AW_ASSERT(line != lines_.end() && line->second.under_way > 0);
  --under_way_;
  if (--line->second.under_way == 0 && line->second.slices.empty()) lines_.erase(line);
}

std::size_t Departures::waiting() const {
  std::size_t count = 0;
  for (const auto& [uid, line] : lines_) count += line.slices.size();
  return count;
}

}  // namespace aw::supervise
