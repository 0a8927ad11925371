// SPDX-License-Identifier: Apache-2.0
//
// Whose call is next. The calls of each uid wait in a line of their own, and one of each is taken in turn, so whoever
// calls as fast as they can waits for themselves. What ends in a request to PID 1, which does one after the other, is
// held back beyond a few of one uid at a time; other calls of that uid pass it meanwhile.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace aw::api {

/// Whether a call is answered at once, or goes to PID 1 and is answered when that has answered.
enum class Pace { kQuick, kSlow };

class Turns {
 public:
  struct Bounds {
    std::size_t waiting;    ///< calls that have had no turn yet
    std::size_t under_way;  ///< slow ones that have had it, and hold their place still
  };
  static constexpr Bounds kOfUser{512, 4};
  static constexpr Bounds kOfAdministrator{8192, 64};

  /// Held as long as a slow call is under way; the last copy gives the place to the next one. Of a quick one it is
  /// null.
  using Place = std::shared_ptr<void>;
  using Deed = std::function<void(Place)>;

  /// `on_ready` is called when a place that somebody waits for has become free.
  explicit Turns(std::function<void()> on_ready) : lines_(std::make_shared<Lines>()) {
    lines_->on_ready = std::move(on_ready);
  }

  /// False, and nothing done, if `uid` has as many calls waiting as it may. `client` is whoever called.
  bool add(uid_t uid, const Bounds& bounds, const std::string& client, Pace pace, Deed deed);
  /// From within a deed: its call has not been done yet, and is the first of `uid` when that has its next turn.
  void go_on(uid_t uid, const std::string& client, Deed deed);
  /// Does the next call; false if there is none that may be done now.
  bool take();
  /// Whether take() would do one.
  bool ready() const;
  /// Forgets the calls of a client that has gone; of all.
  void drop(const std::string& client);
  void clear();
  std::size_t waiting() const;

 private:
  struct Waiting {
    std::uint64_t number;
    std::string client;
    Deed deed;
  };
  struct Line {
    Bounds bounds{};
    std::deque<Waiting> quick;
    std::deque<Waiting> slow;
    std::size_t under_way = 0;
  };
  struct Lines {
    std::map<uid_t, Line> by_uid;
    uid_t last = 0;  ///< who had the last turn
    std::uint64_t number = 0;
    std::function<void()> on_ready;
  };

  /// The line whose first call is the next one of its uid that may be done; nothing if none may.
  static std::deque<Waiting>* next_of(Line& line);
  static bool is_idle(const Line& line);
  static void leave(const std::weak_ptr<Lines>& lines, uid_t uid);

  std::shared_ptr<Lines> lines_;  ///< places outlive us, and find it gone then
};

}  // namespace aw::api
