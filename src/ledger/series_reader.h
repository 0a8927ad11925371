// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "ledger/ledger_reader.h"

namespace aw::ledger {

/// Reads curves beside the loop, which waits for no disk. The thread begins with the first request.
class SeriesReader {
 public:
  /// The curve of a run, or nothing if the ledger has none.
  using Done = std::function<void(Result<std::optional<supervise::SeriesRow>>)>;

  explicit SeriesReader(std::filesystem::path path);
  ~SeriesReader();  ///< waits for a read that is under way; who asked for the others hears nothing
  SeriesReader(const SeriesReader&) = delete;
  SeriesReader& operator=(const SeriesReader&) = delete;

  /// `done` is called from take_done(). False, and it never is, where too many wait.
  [[nodiscard]] bool request(std::string run_id, Done done);

  /// Readable once a request is done; take_done() calls back, for each that is.
  int done_fd() const { return done_fd_.get(); }
  void take_done();

  static constexpr std::size_t kMostWaiting = 8192;

 private:
  struct Asked {
    std::string run_id;
    Done done;
  };
  struct Answered {
    Done done;
    Result<std::optional<supervise::SeriesRow>> series;
  };
  void run();

  LedgerReader reader_;  // The thread's own.
  const UniqueFd done_fd_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Asked> asked_;
  std::vector<Answered> answered_;
  std::size_t under_way_ = 0;  ///< asked, and not taken yet
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace aw::ledger
