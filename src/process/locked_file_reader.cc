// SPDX-License-Identifier: Apache-2.0
#include "process/locked_file_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>

#include "base/thread.h"

namespace aw::process {
namespace {

/// What one request has got so far.
class Batch final : public LockedFileReader::Texts {
 public:
  explicit Batch(std::size_t limit) : limit_(limit) {}

  std::optional<std::string> find(pid_t pid) const override {
    const std::lock_guard lock(mutex_);
    const auto found = read_.find(pid);
    return found == read_.end() ? std::nullopt : std::optional(found->second);
  }
  void put(pid_t pid, std::string text) {
    {
      const std::lock_guard lock(mutex_);
      read_[pid] = std::move(text);
    }
    arrived_.notify_all();
  }
  bool wait_for(std::size_t count, Span patience) {
    std::unique_lock lock(mutex_);
    return arrived_.wait_for(lock, patience, [&] { return read_.size() >= count; });
  }
  std::size_t limit() const { return limit_; }

 private:
  const std::size_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<pid_t, std::string> read_;
};

/// The descriptor is of the process that was meant, whoever has its pid when it is read.
struct Job {
  UniqueFd file;
  pid_t pid;
  std::shared_ptr<Batch> batch;
};

/// One byte more than is shown tells whether that is all.
std::string read_some(int file, std::size_t limit) {
  std::string text(limit + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(file, text.data() + size, text.size() - size);
    if (got <= 0) break;  // Gone, or all of it.
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return text;
}

}  // namespace

struct LockedFileReader::Shared {
  explicit Shared(Show how) : show(std::move(how)) {}

  const Show show;
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<Job> queue;
  unsigned threads = 0;
  unsigned idle = 0;
  bool stop = false;

  void run() {
    std::unique_lock lock(mutex);
    for (;;) {
      ++idle;
      wake.wait(lock, [this] { return stop || !queue.empty(); });
      --idle;
      if (stop) return;
      const Job job = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      const std::size_t limit = job.batch->limit();
      job.batch->put(job.pid, show(read_some(job.file.get(), limit), limit));
      lock.lock();
    }
  }
};

LockedFileReader::LockedFileReader(const char* name, Open open, Show show)
    : name_(name), open_(std::move(open)), shared_(std::make_shared<Shared>(std::move(show))) {}

LockedFileReader::~LockedFileReader() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stop = true;
    shared_->queue.clear();
  }
  shared_->wake.notify_all();
}

void LockedFileReader::begin_thread() {
  try {
    start_thread(name_, [shared = shared_] { shared->run(); }).detach();
    ++shared_->threads;
  } catch (const std::system_error&) {  // No thread to be had: what was asked for does not come.
  }
}

std::shared_ptr<const LockedFileReader::Texts> LockedFileReader::request(std::span<const pid_t> pids, std::size_t limit,
                                                                         Span patience) {
  auto batch = std::make_shared<Batch>(limit);
  std::vector<Job> jobs;
  for (const pid_t pid : pids) {
    UniqueFd file = open_(pid);
    if (file) {
      jobs.push_back({std::move(file), pid, batch});
    } else {
      batch->put(pid, "");
    }
  }
  {
    const std::lock_guard lock(shared_->mutex);
    for (Job& job : jobs) {
      if (shared_->queue.size() < kMostWaiting) {
        shared_->queue.push_back(std::move(job));
      } else {
        batch->put(job.pid, "");
      }
    }
    // Whoever is not idle may be stuck: one process that can't be read must not cost the others.
    if (!shared_->queue.empty() && shared_->idle == 0 && shared_->threads < kMostThreads) begin_thread();
  }
  shared_->wake.notify_one();
  if (batch->wait_for(pids.size(), patience)) return batch;
  const std::lock_guard lock(shared_->mutex);
  if (!shared_->queue.empty() && shared_->idle == 0 && shared_->threads < kMostThreads) begin_thread();
  return batch;
}

LockedFileReader::Open opener_of(const char* file) {
  return [file](pid_t pid) {
    return UniqueFd(::open(("/proc/" + std::to_string(pid) + "/" + file).c_str(), O_RDONLY | O_CLOEXEC));
  };
}

}  // namespace aw::process
