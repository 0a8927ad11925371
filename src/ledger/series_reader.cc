// SPDX-License-Identifier: Apache-2.0
#include "ledger/series_reader.h"

#include <sys/eventfd.h>

#include <system_error>
#include <utility>

#include "base/thread.h"

namespace aw::ledger {

SeriesReader::SeriesReader(std::filesystem::path path)
    : reader_(std::move(path)), done_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

SeriesReader::~SeriesReader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

bool SeriesReader::request(std::string run_id, Done done) {
  {
    const std::lock_guard lock(mutex_);
    if (under_way_ >= kMostWaiting) return false;
    if (!thread_.joinable()) {
      try {
        thread_ = start_thread("series-reader", [this] { run(); });
      } catch (const std::system_error&) {  // No thread to be had.
        return false;
      }
    }
    ++under_way_;
    asked_.push_back({std::move(run_id), std::move(done)});
  }
  wake_.notify_one();
  return true;
}

void SeriesReader::take_done() {
  eventfd_t count = 0;
  (void)::eventfd_read(done_fd_.get(), &count);  // Nothing there: somebody was faster.
  std::vector<Answered> answered;
  {
    const std::lock_guard lock(mutex_);
    answered.swap(answered_);
    under_way_ -= answered.size();
  }
  for (Answered& answer : answered) answer.done(std::move(answer.series));
}

void SeriesReader::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !asked_.empty(); });
    if (stop_) return;
    Asked asked = std::move(asked_.front());
    asked_.pop_front();
    lock.unlock();
    auto series = reader_.read_series(asked.run_id);
    lock.lock();
    answered_.push_back({std::move(asked.done), std::move(series)});
    (void)::eventfd_write(done_fd_.get(), 1);  // Full means that nobody has looked yet.
  }
}

}  // namespace aw::ledger
