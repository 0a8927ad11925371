// SPDX-License-Identifier: Apache-2.0
//
// What is not remembered any more: events from the ledger, read by a thread of its own, because a question about long
// ago may take the disk its time. Each has a limit of time, and few wait. Those who see all come first, then each uid
// in its turn, then those whom nobody knows.
#pragma once

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "ledger/ledger_reader.h"
#include "loop/loop.h"
#include "web/rows.h"
#include "web/viewer.h"

namespace aw::web {

class History {
 public:
  using Events = Result<std::vector<SharedEvent>>;
  using Done = std::function<void(Events)>;
  using Kills = Result<std::vector<ledger::KillCount>>;

  static constexpr std::size_t kMostWaiting = 32;        ///< questions of those who see all
  static constexpr std::size_t kMostOfOneWaiting = 4;    ///< … of one uid that sees its own
  static constexpr std::size_t kMostUnknownWaiting = 2;  ///< … of all anonymous readers
  static constexpr Span kPatience = std::chrono::seconds{3};

  /// No question is read for longer than `patience`.
  History(loop::Loop& loop, std::filesystem::path ledger, Span patience = kPatience)
      : loop_(loop), path_(std::move(ledger)), patience_(patience) {}
  /// Waits for the one that is being read.
  ~History();
  History(const History&) = delete;
  History& operator=(const History&) = delete;

  Result<void> start();

  /// Newest first. `done` comes from the loop, also when it takes too long (errc::timed_out) or too many wait
  /// (errc::device_or_resource_busy).
  void request(const Viewer& asker, ledger::EventQuery query, Done done);
  /// The same of kills, by the quarter of an hour.
  void request_kills(const Viewer& asker, WallTime since, std::function<void(Kills)> done);

 private:
  using Answer = std::function<void()>;  ///< called by the loop
  using Question = std::function<Answer(ledger::LedgerReader&)>;

  template <class T, class Read>
  void ask(const Viewer& asker, Read read, std::function<void(Result<T>)> done);
  void run();
  /// What waits longest, or has its turn; nothing if nobody waits.
  Question take();
  /// Tells the log, once, that the ledger can't be read, and that it can again.
  void note(const Error* error);
  void deliver();

  loop::Loop& loop_;
  const std::filesystem::path path_;
  const Span patience_;
  UniqueFd wake_;  ///< an eventfd
  loop::Source source_;
  std::mutex mutex_;
  std::condition_variable asked_;
  std::deque<Question> all_, unknown_;           ///< that wait
  std::map<uid_t, std::deque<Question>> own_{};  ///< … of each uid; none is empty
  uid_t last_ = 0;                               ///< who of them had the last turn
  std::deque<Answer> answers_;
  bool stop_ = false;
  bool in_trouble_ = false;  ///< the loop's
  std::thread thread_;
};

}  // namespace aw::web
