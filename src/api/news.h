// SPDX-License-Identifier: Apache-2.0
//
// What is to be told on the bus. An event goes to each connection of those who may see it, by itself: one user with
// hundreds of runs and hundreds of connections makes tens of thousands of messages of their own in a moment. So what is
// about one uid's runs waits in a line of its own, and the lines take turns, a few messages at a time, after everything
// that is due. Within a line all keeps its order.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace aw::api {

class News {
 public:
  static constexpr std::size_t kMostAtOnce = 32;     ///< messages in one turn
  static constexpr std::size_t kMostWaiting = 2048;  ///< items of one uid; beyond that the oldest is told at once

  using Observers = std::function<std::vector<std::string>(uid_t)>;
  /// Sends it to one of them.
  using Tell = std::function<void(const std::string& observer)>;

  /// `observers` gives those who may see what is about a uid, at the moment in which its turn comes.
  explicit News(Observers observers) : observers_(std::move(observers)) {}

  void add(uid_t uid, Tell item);
  /// Takes one turn; false if there was nothing to tell.
  bool take();
  /// Tells all there is.
  void flush();
  /// Of a bus that has gone.
  void clear() { lines_.clear(); }
  bool empty() const { return lines_.empty(); }

 private:
  struct Line {
    std::deque<Tell> items;
    std::vector<std::string> left;  ///< who has not been told of the first one yet; the last one is next
    bool begun = false;             ///< … which is known
  };

  /// Tells up to `most` of the line's messages, and how many it has told.
  std::size_t tell(uid_t uid, Line& line, std::size_t most);

  Observers observers_;
  std::map<uid_t, Line> lines_;  ///< none is empty
  uid_t last_ = 0;               ///< who had the last turn
};

}  // namespace aw::api
