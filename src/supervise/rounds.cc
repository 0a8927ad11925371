// SPDX-License-Identifier: Apache-2.0
#include "supervise/rounds.h"

#include <algorithm>
#include <utility>

namespace aw::supervise {

void Rounds::add(RunKey run, Purpose purpose, const Now& now) {
  waiting_.push_back({run, purpose, now.monotonic});
  if (waiting_.size() == 1) request_turns(now.monotonic, kBetweenLate);
}

void Rounds::on_due(const Now& now) { take_turn(now); }

void Rounds::on_late(const Now& now) {
  late_is_armed_ = false;
  const bool late = !waiting_.empty() && now.monotonic - waiting_.front().since >= kLongestWait;
  if (late) return take_turn(now);
  request_turns(now.monotonic, kBetweenLate);
}

void Rounds::take_turn(const Now& now) {
  const Instant began = ports_.read_clock();
  Instant end = began;
  while (!waiting_.empty() && end - began < kTurn) {
    const Round next = waiting_.front();
    waiting_.pop_front();
    ports_.make(next.run, next.purpose, now);
    end = ports_.read_clock();
  }
  request_turns(end, std::max(kBetweenLate, 9 * (end - began)));
}

void Rounds::request_turns(Instant now, Span rest) {
  if (waiting_.empty()) return;
  ports_.request_turn();
  if (std::exchange(late_is_armed_, true)) return;
  ports_.arm_late(std::max(waiting_.front().since + kLongestWait, now + rest));
}

}  // namespace aw::supervise
