// SPDX-License-Identifier: Apache-2.0
//
// What is looked at again and again of every run, whether or not anything has told of it: orphans, limits. It can
// wait, so it is done when the loop has nothing else to do, for a bounded time in one turn: a kill, a call and a stop
// are handled between the rounds of a thousand runs, even if those take all the time that there is.
//
// Nor does it wait for ever. Whoever keeps the loop busy, with calls for example, would otherwise not have their
// orphans found: once rounds have waited for too long they have a tenth of the time, and go before everything.
#pragma once

#include <deque>
#include <functional>

#include "base/time.h"
#include "supervise/ports.h"
#include "supervise/run.h"

namespace aw::supervise {

class Rounds {
 public:
  struct Ports {
    /// Makes one, if there is such a run any more.
    std::function<void(RunKey, Purpose, const Now&)> make;
    /// Asks for on_due() once the loop has nothing else to do.
    std::function<void()> request_turn;
    /// Asks for on_late() at that time, before everything else. It comes even if there is nothing to be made any more:
    /// it is armed for the first of many rounds, not for each.
    std::function<void(Instant)> arm_late;
    /// What time it is, not what it was at the loop's wake-up.
    std::function<Instant()> read_clock;
  };

  /// A turn ends with the round in which it has lasted this long.
  static constexpr Span kTurn = std::chrono::milliseconds{2};
  /// A round that has waited for this long waits no more for what else the loop has to do …
  static constexpr Span kLongestWait = std::chrono::seconds{5};
  /// … but between two turns of those it has that much time for the rest, or nine times what the turn took.
  static constexpr Span kBetweenLate = 9 * kTurn;

  explicit Rounds(Ports ports) : ports_(std::move(ports)) {}

  bool empty() const { return waiting_.empty(); }
  void add(RunKey run, Purpose purpose, const Now& now);
  void on_due(const Now& now);
  void on_late(const Now& now);

 private:
  struct Round {
    RunKey run;
    Purpose purpose;
    Instant since;
  };

  void take_turn(const Now& now);
  /// `rest`: how long the next late turn is away at least.
  void request_turns(Instant now, Span rest);

  Ports ports_;
  std::deque<Round> waiting_;
  bool late_is_armed_ = false;
};

}  // namespace aw::supervise
