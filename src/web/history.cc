// SPDX-License-Identifier: Apache-2.0
#include "web/history.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <system_error>

#include "base/thread.h"
#include "log/service_log.h"
#include "record/event_dict.h"

namespace aw::web {

History::~History() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  asked_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<void> History::start() {
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return errno_error("eventfd");
  auto source = loop_.watch_fd(wake_.get(), EPOLLIN, loop::Priority::kBus, "read from the ledger",
                               [this](const Now&) { deliver(); });
  if (!source) return std::move(source).error();
  source_ = std::move(*source);
  try {
    thread_ = start_thread("history", [this] { run(); });
  } catch (const std::system_error& error) {
    return Error{error.code(), std::string("start a thread: ") + error.what()};
  }
  return {};
}

template <class T, class Read>
void History::ask(const Viewer& asker, Read read, std::function<void(Result<T>)> done) {
  const std::lock_guard lock(mutex_);
  std::deque<Question>* questions = &all_;
  std::size_t most = kMostWaiting;
  if (asker.sight == Sight::kOwn) {
    questions = &own_[asker.uid];
    most = kMostOfOneWaiting;
  } else if (asker.sight == Sight::kAnonymous) {
    questions = &unknown_;
    most = kMostUnknownWaiting;
  }
  if (questions->size() >= most) {
    answers_.push_back([done = std::move(done)] {
      done(Error{std::make_error_code(std::errc::device_or_resource_busy),
                 "too many others are reading the ledger; try again in a second"});
    });
    (void)::eventfd_write(wake_.get(), 1);  // It can't be full.
    return;
  }
  // Asked once: what `done` holds for the answer is moved along, not copied.
  questions->push_back(
      [this, read = std::move(read), done = std::move(done)](ledger::LedgerReader& reader) mutable -> Answer {
        auto result = read(reader);
        return [this, done = std::move(done), result = std::move(result)]() mutable {
          note(result ? nullptr : &result.error());
          done(std::move(result));
        };
      });
  asked_.notify_one();
}

void History::request(const Viewer& asker, ledger::EventQuery query, Done done) {
  ask<std::vector<SharedEvent>>(
      asker,
      // Made into JSON here, too: of 5,000 that takes its time.
      [query = std::move(query)](ledger::LedgerReader& reader) -> Events {
        const auto stored = reader.read_events(query);
        if (!stored) return Error(stored.error());
        std::vector<SharedEvent> events;
        events.reserve(stored->size());
        for (const supervise::EventRecord& event : *stored) {
          events.push_back(std::make_shared<const Event>(to_event(record::to_dict(event))));
        }
        return events;
      },
      std::move(done));
}

void History::request_kills(const Viewer& asker, WallTime since, std::function<void(Kills)> done) {
  ask<std::vector<ledger::KillCount>>(
      asker, [since](ledger::LedgerReader& reader) { return reader.count_kills(since); }, std::move(done));
}

History::Question History::take() {
  const auto first_of = [](std::deque<Question>& questions) {
    Question question = std::move(questions.front());
    questions.pop_front();
    return question;
  };
  if (!all_.empty()) return first_of(all_);
  if (own_.empty()) return unknown_.empty() ? Question() : first_of(unknown_);
  // The one after the last, round to that one itself.
  auto turn = own_.upper_bound(last_);
  if (turn == own_.end()) turn = own_.begin();
  last_ = turn->first;
  Question question = first_of(turn->second);
  if (turn->second.empty()) own_.erase(turn);
  return question;
}

void History::note(const Error* error) {
  const bool trouble = error != nullptr && error->code != std::errc::timed_out;
  if (trouble == in_trouble_) return;
  in_trouble_ = trouble;
  if (trouble) {
    log::warn("the ledger can't be read, so what is shown of the past is what the daemon remembers: " + error->message);
  } else {
    log::info("the ledger can be read again");
  }
}

void History::run() {
  ledger::LedgerReader reader(path_);
  reader.set_time_limit(patience_);
  std::unique_lock lock(mutex_);
  for (;;) {
    Question question;
    asked_.wait(lock, [&] { return stop_ || (question = take()); });
    if (stop_) return;
    lock.unlock();
    Answer answer = question(reader);
    lock.lock();
    answers_.push_back(std::move(answer));
    (void)::eventfd_write(wake_.get(), 1);  // It can't be full.
  }
}

void History::deliver() {
  eventfd_t count = 0;
  (void)::eventfd_read(wake_.get(), &count);  // Only to make it quiet.
  std::deque<Answer> answers;
  {
    const std::lock_guard lock(mutex_);
    answers.swap(answers_);
  }
  for (; !answers.empty(); answers.pop_front()) answers.front()();  // What one held is let go before the next.
}

}  // namespace aw::web
