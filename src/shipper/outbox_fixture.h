// SPDX-License-Identifier: Apache-2.0
//
// Linked by tests only: a ledger with events.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <filesystem>
#include <memory>
#include <string>

#include "ledger/ledger.h"
#include "testing/patience.h"

namespace aw::shipper {

inline constexpr char kHost[] = "node-1";

inline std::string uuid(char kind, int number) {
  std::string text = "00000000-0000-4000-8000-000000000000";
  const std::string digits = std::to_string(number);
  text[0] = kind;
  text.replace(text.size() - digits.size(), digits.size(), digits);
  return text;
}

/// A daemon's ledger, and what happens on that host.
class Outbox {
 public:
  Outbox() {
    std::string pattern = (std::filesystem::temp_directory_path() / "shipper-test-XXXXXX").string();
    directory_ = ::mkdtemp(pattern.data());
    begin();
  }
  ~Outbox() {
    ledger_.reset();
    std::filesystem::remove_all(directory_);
  }
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  std::filesystem::path file() const { return directory_ / "ledger" / "ledger.db"; }
  std::filesystem::path shipped_file() const { return directory_ / "shipped"; }

  /// The n-th event of all; a run has a beginning and an end.
  supervise::EventRecord next() {
    const int number = written_++;
    supervise::EventRecord event;
    event.event_id = uuid('e', number);
    event.occurred_at = WallTime(Span(1'800'000'000'000'000 + number));
    event.host = kHost;
    event.boot_id = "b0070000-0000-4000-8000-000000000001";
    event.run_id = uuid('a', number / 2);
    event.registered_as = "run-" + std::to_string(number / 2);
    event.kind = number % 2 == 0 ? EventKind::kRegistered : EventKind::kEnded;
    if (number % 2 == 1) event.reason = Reason::kMemory;
    event.pid = 4711;
    event.uid = 1000;
    return event;
  }
  void write(int count) {
    for (int i = 0; i < count; ++i) ledger_->write(next());
    wait();
  }
  void write(const supervise::EventRecord& event) {
    ledger_->write(event);
    wait();
  }
  void keep_series(const supervise::SeriesRow& series) {
    ledger_->keep_series(series);
    wait();
  }
  void close() { ledger_.reset(); }
  void begin() {
    ledger_ = std::make_unique<ledger::Ledger>(ledger::LedgerOptions{.path = file()});
    wait();
  }
  void replace() {
    close();
    std::filesystem::remove_all(file().parent_path());
    begin();
  }
  ledger::Extent extent() const { return ledger_->extent(); }

 private:
  void wait() const {
    ASSERT_TRUE(ledger_->wait_until_opened(aw::testing::kPatience));
    while (ledger_->waiting() > 0) {
      pollfd poll{ledger_->changed_fd(), POLLIN, 0};
      (void)::poll(&poll, 1, 10);
      ledger_->take_changed();
    }
  }
  std::filesystem::path directory_;
  std::unique_ptr<ledger::Ledger> ledger_;
  int written_ = 0;
};

}  // namespace aw::shipper
