// SPDX-License-Identifier: Apache-2.0
//
// Whose slice is taken away next. A run's end is over with cgroup.kill; what is left is an empty unit, and PID 1 takes
// its time for each (20 to 50 ms, measured), one after the other, with whoever asks for something else behind them. So
// of one uid's only a few are asked for at a time, and the uids take turns: who ends 500 runs at once fills nobody's
// queue.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <string>

namespace aw::supervise {

class Departures {
 public:
  static constexpr std::size_t kMostOfOne = 8;   ///< of one uid that are under way
  static constexpr std::size_t kMostOfAll = 16;  ///< … of all

  struct Departure {
    uid_t uid = 0;
    std::string slice;
  };

  void add(uid_t uid, std::string slice);
  /// Whom to take away now; counted as under way until left(). Nothing if there is nobody, or too many are under way.
  std::optional<Departure> next();
  /// The same for this one, whose name somebody waits for, out of turn and whatever is under way. Nothing if it does
  /// not wait.
  std::optional<Departure> take(const std::string& slice);
  /// One of this uid's is gone, or could not be taken away.
  void left(uid_t uid);

  std::size_t waiting() const;
  std::size_t under_way() const { return under_way_; }

 private:
  struct Line {
    std::deque<std::string> slices;
    std::size_t under_way = 0;
  };

  void begin(Line& line);

  std::map<uid_t, Line> lines_;
  uid_t last_ = 0;  ///< who had the last turn
  std::size_t under_way_ = 0;
};

}  // namespace aw::supervise
