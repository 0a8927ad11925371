// SPDX-License-Identifier: Apache-2.0
//
// Events as journal records. The fields go through sd_journal_sendv(), one vector each, so that nothing an analysis
// controls can forge a field or a line. A thread of its own does the sending: the journal's socket may block, and
// nothing on the kill path waits for anything.
#pragma once

#include <sys/uio.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "supervise/event_record.h"

namespace aw::journal {

/// "MESSAGE_ID=…" of a kind: fixed, and described in the catalog (units/analysis-watchdog.catalog).
const char* message_id(EventKind kind);

/// The fields of the record, "NAME=value" each, MESSAGE and PRIORITY included. Pure; a test compares them with the
/// contract.
std::vector<std::string> journal_fields(const supervise::EventRecord& event);

class JournalWriter {
 public:
  /// Hands the fields of one record over; may block. Negative on failure, as sd_journal_sendv().
  using Send = std::function<int(const iovec*, int)>;
  JournalWriter();
  explicit JournalWriter(Send send);  ///< for tests
  ~JournalWriter();                   ///< writes what is queued, then ends
  JournalWriter(const JournalWriter&) = delete;
  JournalWriter& operator=(const JournalWriter&) = delete;

  /// Queues the record. When kCapacity are waiting the oldest is dropped and counted: the journal is a consumer of the
  /// record, not its keeper.
  void write(const supervise::EventRecord& event);

  std::uint64_t waiting() const;  ///< records that are not with the journal yet
  bool healthy() const;           ///< none was dropped or refused so far

  /// Readable once the last record that was waiting is with the journal (or refused); take_drained() makes it not so.
  int drained_fd() const { return drained_.get(); }
  void take_drained();

 private:
  static constexpr std::size_t kCapacity = 10000;
  void run();

  const Send send_;
  UniqueFd drained_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::vector<std::string>> queue_;
  std::size_t dropped_ = 0;
  std::uint64_t lost_ = 0;  ///< dropped or refused, ever
  bool sending_ = false;    ///< one is out of the queue, and not with the journal yet
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace aw::journal
