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

#include "base/result.h"
#include "base/unique_fd.h"
#include "supervise/event_record.h"

namespace aw::journal {

/// "MESSAGE_ID=…" of a kind: fixed, and described in the catalog (units/analysis-watchdog.catalog).
const char* message_id(EventKind kind);

/// Whose units the runs' are. A user's are shown by journalctl --user-unit, which looks for another field.
enum class UnitsOf { kSystem, kUser };

/// The fields of the record, "NAME=value" each, MESSAGE and PRIORITY included. Pure; a test compares them with the
/// contract.
std::vector<std::string> journal_fields(const supervise::EventRecord& event, UnitsOf units = UnitsOf::kSystem);

class JournalWriter {
 public:
  /// Hands the fields of one record over; may block. Negative on failure, as sd_journal_sendv().
  using Send = std::function<int(const iovec*, int)>;
  explicit JournalWriter(UnitsOf units = UnitsOf::kSystem);
  explicit JournalWriter(Send send, UnitsOf units = UnitsOf::kSystem);  ///< for tests
  ~JournalWriter();                                                     ///< writes what is queued, then ends
  JournalWriter(const JournalWriter&) = delete;
  JournalWriter& operator=(const JournalWriter&) = delete;

  /// Queues the record. When kCapacity are waiting the oldest is dropped and counted: the journal is a consumer of the
  /// record, not its keeper.
  void write(const supervise::EventRecord& event);

  std::uint64_t waiting() const;   ///< records that are not with the journal yet
  std::uint64_t accepted() const;  ///< how many were queued so far
  std::uint64_t settled() const;   ///< how many of those, the oldest ones, are with the journal or never will be
  bool healthy() const;            ///< none was dropped or refused so far

  /// Readable once a record that was waiting is with the journal (or refused); take_sent() makes it not so.
  int sent_fd() const { return sent_.get(); }
  void take_sent();

 private:
  static constexpr std::size_t kCapacity = 10000;
  void run();

  const Send send_;
  const UnitsOf units_;
  UniqueFd sent_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::vector<std::string>> queue_;
  std::uint64_t accepted_ = 0;
  std::size_t dropped_ = 0;
  std::uint64_t lost_ = 0;  ///< dropped or refused, ever
  bool sending_ = false;    ///< one is out of the queue, and not with the journal yet
  bool stop_ = false;
  std::thread thread_;
};

/// Whether the host's journal has a record of that event. Reads its files, so it is for the start only, when nothing is
/// watched yet. An error where it can't be read.
Result<bool> has_record(const std::string& event_id);

}  // namespace aw::journal
