// SPDX-License-Identifier: Apache-2.0
#include "ledger/ledger.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "base/assert.h"
#include "base/thread.h"

namespace aw::ledger {
namespace {

constexpr std::size_t kLargestBatch = 8192;  // A backlog is written in parts, so that the log stays small.
constexpr std::size_t kMostNotices = 100;    // Nobody reads more.
constexpr std::chrono::minutes kBetweenSettingAside{1};

WallTime wall_clock() {
  return WallTime(std::chrono::duration_cast<Span>(std::chrono::system_clock::now().time_since_epoch()));
}

/// Roughly, and without what every entry needs, which the number of entries bounds.
std::size_t text_of(const supervise::EventRecord& event) {
  std::size_t bytes = event.event_id.size() + event.host.size() + event.boot_id.size() + event.run_id.size() +
                      event.registered_as.size() + event.unit.size() + event.comm.size() + event.cmdline.size();
  for (const supervise::ProcessSummary& process : event.processes) {
    bytes += sizeof process + process.comm.size() + process.cmdline.size();
  }
  for (const auto& [name, value] : event.details) {
    const auto* text = std::get_if<std::string>(&value);
    bytes += sizeof value + name.size() + (text != nullptr ? text->size() : 0);
  }
  return bytes;
}

std::size_t text_of(const supervise::RunRow& row) {
  std::size_t bytes = row.run_id.size() + row.registered_as.size() + row.host.size() + row.boot_id.size() +
                      row.unit.size() + row.limits.description.size();
  for (const auto& [name, value] : row.limits.labels) bytes += sizeof name + name.size() + value.size();
  return bytes;
}

std::size_t text_of(const BeginRun& begin) { return text_of(begin.row); }
std::size_t text_of(const ChangeRun& change) { return text_of(change.row); }
std::size_t text_of(const EndRun& end) { return end.run_id.size(); }
std::size_t text_of(const KeepSeries& keep) {
  return keep.samples.size() + keep.row.run_id.size() + keep.row.registered_as.size() + keep.row.host.size();
}

/// A curve that is left out is there with the next checkpoint, if there is one.
bool comes_again(const Entry& entry) {
  const auto* keep = std::get_if<KeepSeries>(&entry);
  return keep != nullptr && !keep->row.over;
}

bool is_full(const Error& error) { return error.code == std::error_code(SQLITE_FULL, sqlite_category()); }

/// What is written at once must fit into what a prune leaves free.
std::size_t largest_batch(std::optional<std::uint32_t> most_pages) {
  return most_pages ? std::clamp<std::size_t>(*most_pages / 32, 1, kLargestBatch) : kLargestBatch;
}

}  // namespace

std::optional<std::uint32_t> most_pages_of(Bytes size) {
  constexpr std::uint64_t kPage = 4096;
  constexpr std::uint64_t kMost = 4'294'967'294;  // SQLite's own bound.
  if (size.is_infinite()) return std::nullopt;
  return static_cast<std::uint32_t>(std::min(size.count() / kPage, kMost));
}

Ledger::Ledger(LedgerOptions options)
    : options_(std::move(options)),
      changed_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      problem_(options_.path.string() + " is being opened") {
  thread_ = start_thread("ledger", [this] { run(); });
}

Ledger::~Ledger() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

// ---- From the loop ----

void Ledger::write(const supervise::EventRecord& event) { push(event); }
void Ledger::begin_run(const supervise::RunRow& row) { push(BeginRun{row}); }
void Ledger::change_run(const supervise::RunRow& row) { push(ChangeRun{row}); }
void Ledger::end_run(const std::string& run_id) { push(EndRun{run_id}); }

void Ledger::keep_series(const supervise::SeriesRow& series) {
  KeepSeries keep{series, supervise::encode_series(series.samples)};
  keep.row.samples = {};
  push(std::move(keep));
}

Ledger::Importance Ledger::importance_of(const Entry& entry) {
  if (std::holds_alternative<KeepSeries>(entry)) return Importance::kSeries;
  const auto* event = std::get_if<supervise::EventRecord>(&entry);
  const bool ends = event == nullptr ? std::holds_alternative<EndRun>(entry)
                                     : event->kind == EventKind::kEnding || event->kind == EventKind::kEscalated ||
                                           event->kind == EventKind::kEnded || event->kind == EventKind::kUnregistered;
  return ends ? Importance::kEndsRun : Importance::kUsual;
}

void Ledger::push(Entry entry) {
  {
    const std::lock_guard lock(mutex_);
    if (!overdue_told_ && overdue()) {
      overdue_told_ = true;
      notify();
    }
    if (!has_room(importance_of(entry))) {
      if (comes_again(entry)) return;
      ++lost_;
      if (overflowed_++ == 0) notify();
      return;
    }
    const std::size_t bytes = std::visit([](const auto& what) { return text_of(what); }, entry);
    queue_.push_back({std::move(entry), bytes, Clock::now()});
    waiting_bytes_ += bytes;
  }
  wake_.notify_one();
}

bool Ledger::has_room(Importance importance) const {
  const auto bound = [&](std::size_t most) {
    switch (importance) {
      case Importance::kSeries:
        return most / 2;
      case Importance::kUsual:
        return most - most / 10;
      case Importance::kEndsRun:
        return most;
    }
    unreachable(importance);
  };
  return waiting_now() < bound(options_.capacity) && waiting_bytes_ < bound(options_.most_bytes);
}

std::optional<Span> Ledger::overdue() const {
  if (waiting_now() == 0) return std::nullopt;
  const auto since = in_flight_count_ > 0 ? in_flight_since_ : queue_.front().since;
  const auto waited = std::chrono::duration_cast<Span>(Clock::now() - since);
  return waited > options_.patience ? std::optional(waited) : std::nullopt;
}

void Ledger::prune(const PruneOrder& order) {
  {
    const std::lock_guard lock(mutex_);
    prune_ = order;
  }
  wake_.notify_one();
}

std::uint64_t Ledger::accepted() const {
  const std::lock_guard lock(mutex_);
  return settled_ + waiting_now();
}

std::uint64_t Ledger::settled() const {
  const std::lock_guard lock(mutex_);
  return settled_;
}

std::uint64_t Ledger::waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_now();
}

std::uint64_t Ledger::lost() const {
  const std::lock_guard lock(mutex_);
  return lost_;
}

Extent Ledger::extent() const {
  const std::lock_guard lock(mutex_);
  return extent_;
}

bool Ledger::healthy() const {
  const std::lock_guard lock(mutex_);
  return problem_.empty() && !overdue() && has_room(Importance::kUsual);
}

std::string Ledger::problem() const {
  const std::lock_guard lock(mutex_);
  std::string sentence = problem_;
  if (const auto waited = overdue(); waited && sentence.empty()) {
    sentence = options_.path.string() + " takes no writes: what came " +
               format_span(std::chrono::floor<std::chrono::seconds>(*waited)) + " ago is not written yet";
  }
  if (!has_room(Importance::kUsual)) {
    if (sentence.empty()) sentence = options_.path.string() + ": the disk is too slow";
    sentence += "; " + std::to_string(waiting_now()) + " entries wait, and there is room for no more";
  }
  return sentence;
}

std::vector<std::string> Ledger::take_notices() {
  const std::lock_guard lock(mutex_);
  return std::exchange(notices_, {});
}

unsigned Ledger::renewals() const {
  const std::lock_guard lock(mutex_);
  return renewals_;
}

bool Ledger::wait_until_opened(Span at_most) {
  std::unique_lock lock(mutex_);
  return opened_.wait_for(lock, at_most, [this] { return tried_; });
}

void Ledger::request_runs() {
  {
    const std::lock_guard lock(mutex_);
    runs_wanted_ = true;
  }
  wake_.notify_one();
}

std::optional<LiveRuns> Ledger::take_runs() {
  const std::lock_guard lock(mutex_);
  return std::exchange(runs_, std::nullopt);
}

void Ledger::take_changed() {
  eventfd_t count = 0;
  (void)::eventfd_read(changed_.get(), &count);  // Nothing there: somebody was faster.
}

void Ledger::notify() { (void)::eventfd_write(changed_.get(), 1); }  // Full means that nobody has looked yet.

void Ledger::say(std::string notice) {
  if (notices_.size() < kMostNotices) notices_.push_back(std::move(notice));
}

// ---- On the thread ----

bool Ledger::take_beat() {
  const std::lock_guard lock(mutex_);
  const bool beat = !std::exchange(beat_wanted_, true) || !tried_ || sleeps_uninterruptibly(thread_id_);
  wake_.notify_one();
  return beat;
}

void Ledger::run() {
  {
    const std::lock_guard lock(mutex_);
    thread_id_ = ::gettid();
  }
  for (;;) {
    const Attempt outcome = attempt();
    std::unique_lock lock(mutex_);
    beat_wanted_ = false;
    switch (outcome) {
      case Attempt::kMore:
        if (stop_ && waiting_now() == 0) return;  // The rest of a prune can wait for the next start.
        break;
      case Attempt::kDone:
        wake_.wait(lock, [this] { return stop_ || !queue_.empty() || prune_ || beat_wanted_ || runs_wanted_; });
        if (stop_ && queue_.empty()) return;
        break;
      case Attempt::kFailed:
        if (stop_) return;
        wake_.wait_for(lock, options_.retry, [this] { return stop_; });
        break;
    }
  }
}

Ledger::Attempt Ledger::attempt() {
  // A file that was removed or replaced takes writes that nobody will ever see.
  if (file_ && file_->has_moved()) {
    file_.reset();
    const std::lock_guard lock(mutex_);
    ++renewals_;
    say(options_.path.string() + " was removed or replaced; what is there now goes on as the ledger");
  }
  if (!file_) {
    if (auto opened = open(); !opened) {
      fail(std::move(opened).error());
      return Attempt::kFailed;
    }
  }
  read_runs();
  if (auto committed = commit(); !committed) {
    if (is_full(committed.error()) && make_room()) return Attempt::kMore;
    fail(std::move(committed).error());
    return Attempt::kFailed;
  }
  const auto more_to_prune = prune_some();
  if (!more_to_prune) {
    fail(Error(more_to_prune.error()));
    return Attempt::kFailed;
  }
  const std::lock_guard lock(mutex_);
  return *more_to_prune || !queue_.empty() ? Attempt::kMore : Attempt::kDone;
}

Result<void> Ledger::open() {
  const auto is_damage = [](const Error& error) { return trouble_of(error.code) == Trouble::kCorrupt; };
  if (!checked_) {
    auto looked = look_for_damage(options_.path);
    if (!looked && is_damage(looked.error())) recover(looked.error());
    checked_ = looked.has_value();  // Otherwise there is no file yet, or LedgerFile says what is wrong.
  }
  auto opened = LedgerFile::open(options_.path, options_.most_pages);
  if (!opened && is_damage(opened.error())) {
    recover(opened.error());
    opened = LedgerFile::open(options_.path, options_.most_pages);
  }
  if (!opened) return std::move(opened).error();
  file_.emplace(std::move(*opened));
  checked_ = true;
  return {};
}

void Ledger::read_runs() {
  {
    const std::lock_guard lock(mutex_);
    if (!runs_wanted_) return;
  }
  auto runs = LedgerReader(options_.path).read_live_runs();
  const std::lock_guard lock(mutex_);
  runs_wanted_ = false;  // What can't be read now is read by the next who starts.
  if (!runs) return say(options_.path.string() + ": which runs were live can't be read: " + runs.error().message);
  runs_ = *std::move(runs);
  notify();
}

Result<void> Ledger::commit() {
  {
    const std::lock_guard lock(mutex_);
    if (in_flight_.empty() && !queue_.empty()) {
      in_flight_since_ = queue_.front().since;
      while (!queue_.empty() && in_flight_.size() < largest_batch(options_.most_pages)) {
        in_flight_bytes_ += queue_.front().bytes;
        in_flight_.push_back(std::move(queue_.front().entry));
        queue_.pop_front();
      }
      in_flight_count_ = in_flight_.size();
    }
  }
  std::vector<std::string> refused;
  if (!in_flight_.empty()) {
    auto committed = file_->commit(in_flight_);
    if (!committed) return std::move(committed).error().within(options_.path.string());
    refused = *std::move(committed);
  }
  const bool wrote = !in_flight_.empty();
  in_flight_.clear();
  auto extent = file_->read_extent();

  const std::lock_guard lock(mutex_);
  settled_ += std::exchange(in_flight_count_, 0);
  waiting_bytes_ -= std::exchange(in_flight_bytes_, 0);
  overdue_told_ = false;
  if (extent) extent_ = *std::move(extent);  // What can't be read shows with the next commit.
  lost_ += refused.size();
  for (std::string& sentence : refused) say(options_.path.string() + ": " + std::move(sentence));
  const bool was_full = overflowed_ > 0;
  if (was_full) {
    say(options_.path.string() + ": " + std::to_string(std::exchange(overflowed_, 0)) +
        " entries are lost, because too many waited");
  }
  const bool recovered = !problem_.empty() || !tried_;
  problem_.clear();
  tried_ = true;
  opened_.notify_all();
  if (recovered || was_full || !refused.empty() || wrote) notify();
  return {};
}

/// A full disk or file takes no event, but what is old may still go. What was ordered goes first; if that is not enough
/// for a file at its bound, more.
bool Ledger::make_room() {
  if (const auto more = prune_some(); more && *more) return true;
  if (!options_.most_pages) return false;
  const auto bound = file_->exceeds_bound(in_flight_, *options_.most_pages);
  if (!bound || !*bound) return false;
  const auto deleted = file_->prune_oldest(*options_.most_pages);
  if (!deleted || *deleted == 0) return false;
  const std::lock_guard lock(mutex_);
  say(options_.path.string() + " is at its MaxSize=; the oldest " + std::to_string(*deleted) +
      " events were deleted, whether PostgreSQL has them or not");
  notify();
  return true;
}

Result<bool> Ledger::prune_some() {
  std::optional<PruneOrder> order;
  {
    const std::lock_guard lock(mutex_);
    order = prune_;
  }
  if (!order) return false;
  const auto step = file_->prune_step(*order);
  if (!step) return Error(step.error()).within("prune " + options_.path.string());
  if (!step->done) return true;
  const std::lock_guard lock(mutex_);
  if (prune_ == order) prune_.reset();  // Not one that came in meanwhile.
  notify();
  return false;
}

void Ledger::fail(Error error) {
  // What went wrong may have made the handle useless as well; a new one is cheap beside a second of waiting.
  if (trouble_of(error.code) == Trouble::kCorrupt) {
    recover(error);
  } else {
    file_.reset();
  }
  const std::lock_guard lock(mutex_);
  const bool changed = problem_ != error.message || !tried_;
  problem_ = std::move(error.message);
  tried_ = true;
  opened_.notify_all();
  if (changed) notify();
}

/// Makes room for a new file. Where that does not go, or went a moment ago, the queue waits as for a full disk.
void Ledger::recover(const Error& damage) {
  if (file_) file_->forget();
  file_.reset();
  const auto now = std::chrono::steady_clock::now();
  if (last_set_aside_ && now - *last_set_aside_ < kBetweenSettingAside) return;
  auto moved = ledger::set_aside(options_.path, wall_clock());

  const std::lock_guard lock(mutex_);
  if (!moved) {
    say(damage.message + "; it can't be set aside: " + moved.error().message);
    return;
  }
  last_set_aside_ = now;
  checked_ = false;
  ++renewals_;
  say(damage.message + "; it is set aside as " + moved->string() + ", and a new ledger is begun");
  notify();
}

}  // namespace aw::ledger
