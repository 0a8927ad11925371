// SPDX-License-Identifier: Apache-2.0
#include "journal/journal_writer.h"

#include <sys/eventfd.h>
#include <unistd.h>
#define SD_JOURNAL_SUPPRESS_LOCATION  // CODE_FILE= would be the path of a build.
#include <systemd/sd-journal.h>

#include "base/analysis_id.h"
#include "base/assert.h"
#include "base/failpoint.h"
#include "base/thread.h"
#include "journal/sentences.h"

namespace aw::journal {
namespace {

using supervise::EventRecord;

std::string number(std::uint64_t value) { return std::to_string(value); }

/// Details by which records are sought.
constexpr std::pair<const char*, const char*> kDetailFields[] = {{"cause", "ANALYSIS_CAUSE"},
                                                                 {"limit_of", "ANALYSIS_LIMIT_OF"},
                                                                 {"limit_cgroup", "ANALYSIS_LIMIT_CGROUP"},
                                                                 {"requested_by_uid", "ANALYSIS_REQUESTED_BY_UID"},
                                                                 {"requested_by_pid", "ANALYSIS_REQUESTED_BY_PID"},
                                                                 {"requested_by_comm", "ANALYSIS_REQUESTED_BY_COMM"}};

std::string to_text(const supervise::DetailValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "1" : "0";
  return number(std::get<std::uint64_t>(value));
}

/// The scope that a run began in, where it has moved to another since: after an extension, say.
std::string earlier_unit(const EventRecord& e) {
  const auto id = AnalysisId::parse(e.registered_as);
  if (!id || e.unit.empty()) return "";
  std::string first = scope_unit(*id);
  return first == e.unit ? "" : first;
}

/// Kills are warnings; what only says that life goes on is information (syslog levels).
const char* priority(const EventRecord& e) {
  switch (e.kind) {
    case EventKind::kUnkillable:
      return "PRIORITY=3";
    case EventKind::kEnding:
    case EventKind::kEscalated:
    case EventKind::kOrphanFound:
    case EventKind::kUnreaped:
    case EventKind::kLimitsRestored:
    case EventKind::kEscaped:
      return "PRIORITY=4";
    case EventKind::kEnded:
      return e.reason == Reason::kExited ? "PRIORITY=6" : "PRIORITY=4";
    case EventKind::kRegistered:
    case EventKind::kUnregistered:
    case EventKind::kLimitsChanged:
    case EventKind::kExtended:
    case EventKind::kAdopted:
    case EventKind::kDaemonStarted:
    case EventKind::kDaemonStopped:
      return "PRIORITY=6";
  }
  unreachable(e.kind);
}

}  // namespace

const char* message_id(EventKind kind) {
  switch (kind) {
    case EventKind::kRegistered:
      return "MESSAGE_ID=47eaa0992cb6916d86dc283cf0480ff9";
    case EventKind::kUnregistered:
      return "MESSAGE_ID=1509bb0a9bf13331ca118783593942a4";
    case EventKind::kLimitsChanged:
      return "MESSAGE_ID=f5ec52ed0108847512e1bc7656670b14";
    case EventKind::kLimitsRestored:
      return "MESSAGE_ID=902f33234e844ba0835e349fb30d6aab";
    case EventKind::kExtended:
      return "MESSAGE_ID=59ba1b0d5c9061582909406c2e416788";
    case EventKind::kOrphanFound:
      return "MESSAGE_ID=5d32fe61985fb4e72a095ee82bb29976";
    case EventKind::kEscaped:
      return "MESSAGE_ID=408d0d54c42c4120894ce4d7e860c6aa";
    case EventKind::kEnding:
      return "MESSAGE_ID=9a1e40b458151a9959e2d15364c7a500";
    case EventKind::kEscalated:
      return "MESSAGE_ID=68b4aef73eaabe171d8a4eace693ae2d";
    case EventKind::kUnkillable:
      return "MESSAGE_ID=142c83647806857713e783e7eb04b39b";
    case EventKind::kEnded:
      return "MESSAGE_ID=3b041641178854f2260df25453fe2e85";
    case EventKind::kUnreaped:
      return "MESSAGE_ID=00a154d85ed8abcc35c719c2add9ca88";
    case EventKind::kAdopted:
      return "MESSAGE_ID=c0290103855dbf5559ec8712e8e3574f";
    case EventKind::kDaemonStarted:
      return "MESSAGE_ID=6e704245a4ff91e3e7949b80dcb0b82e";
    case EventKind::kDaemonStopped:
      return "MESSAGE_ID=de1b1471320a88ea37a788d106762832";
  }
  unreachable(kind);
}

std::vector<std::string> journal_fields(const EventRecord& e, UnitsOf units) {
  std::vector<std::string> fields{"MESSAGE=" + message(e),
                                  priority(e),
                                  message_id(e.kind),
                                  "SYSLOG_IDENTIFIER=analysis-watchdogd",
                                  "ANALYSIS_EVENT_ID=" + e.event_id,
                                  "ANALYSIS_EVENT=" + std::string(to_string(e.kind))};
  const auto text = [&](const char* name, const std::string& value) {
    if (!value.empty()) fields.push_back(std::string(name) + "=" + value);
  };
  const auto bytes = [&](const char* name, const std::optional<Bytes>& value) {
    if (value) text(name, number(value->count()));
  };
  const auto span = [&](const char* name, const std::optional<Span>& value) {
    if (value) text(name, number(to_usec(*value)));
  };
  text("ANALYSIS_ID", e.registered_as);
  text("ANALYSIS_RUN_ID", e.run_id);
  text("ANALYSIS_UNIT", e.unit);
  text("OBJECT_SYSTEMD_UNIT", e.unit);
  text("OBJECT_SYSTEMD_UNIT", earlier_unit(e));  // A second value: journalctl -u finds the record under both.
  if (units == UnitsOf::kUser) {
    text("OBJECT_SYSTEMD_USER_UNIT", e.unit);
    text("OBJECT_SYSTEMD_USER_UNIT", earlier_unit(e));
  }
  if (e.reason) text("ANALYSIS_REASON", std::string(to_string(*e.reason)));
  if (e.pid) text("ANALYSIS_PID", std::to_string(*e.pid));
  text("ANALYSIS_COMM", e.comm);
  text("ANALYSIS_CMDLINE", e.cmdline);
  if (e.uid) text("ANALYSIS_UID", std::to_string(*e.uid));
  bytes("ANALYSIS_MEMORY_CURRENT", e.memory);
  bytes("ANALYSIS_MEMORY_PEAK", e.memory_peak);
  bytes("ANALYSIS_MEMORY_LIMIT", e.memory_limit);
  span("ANALYSIS_DURATION_USEC", e.duration);
  span("ANALYSIS_WALL_CLOCK_LIMIT_USEC", e.wall_clock_limit);
  span("ANALYSIS_CPU_USEC", e.cpu);
  if (e.signal) text("ANALYSIS_SIGNAL", std::to_string(*e.signal));
  if (!e.run_id.empty()) text("ANALYSIS_ESCALATED", e.escalated ? "1" : "0");
  if (e.exit_code) text("ANALYSIS_EXIT_CODE", std::to_string(*e.exit_code));
  if (e.exit_signal) text("ANALYSIS_EXIT_SIGNAL", std::to_string(*e.exit_signal));
  bytes("ANALYSIS_LEFTOVER_MEMORY", e.leftover_memory);
  for (const auto& [name, field] : kDetailFields) {
    for (const auto& [key, value] : e.details) {
      if (key == name) text(field, to_text(value));
    }
  }
  text("ANALYSIS_WHY", why(e));
  text("ANALYSIS_FIGURES", figures(e));
  text("ANALYSIS_LIMITS", limits(e));
  return fields;
}

JournalWriter::JournalWriter(UnitsOf units) : JournalWriter(&sd_journal_sendv, units) {}

JournalWriter::JournalWriter(Send send, UnitsOf units)
    : send_(std::move(send)), units_(units), sent_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  thread_ = start_thread("journal", [this] { run(); });
}

JournalWriter::~JournalWriter() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void JournalWriter::write(const EventRecord& event) {
  auto fields = journal_fields(event, units_);
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() >= kCapacity) {
      queue_.pop_front();
      ++dropped_;
      ++lost_;
    }
    queue_.push_back(std::move(fields));
    ++accepted_;
  }
  wake_.notify_one();
}

void JournalWriter::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const auto fields = std::move(queue_.front());
    queue_.pop_front();
    sending_ = true;
    const std::size_t dropped = std::exchange(dropped_, 0);
    lock.unlock();
    std::vector<iovec> parts;
    for (const std::string& field : fields) parts.push_back({const_cast<char*>(field.data()), field.size()});
    const int refused = AW_FAILPOINT_ERRNO("journal.send", ENOBUFS, ENOENT);
    const bool sent = refused == 0 && send_(parts.data(), static_cast<int>(parts.size())) >= 0;
    AW_FAILPOINT("journal.sent");
    if (dropped > 0) (void)sd_journal_print(4, "%zu records did not reach the journal: it took too long", dropped);
    lock.lock();
    sending_ = false;
    if (!sent) ++lost_;
    (void)::eventfd_write(sent_.get(), 1);  // Full means that nobody has looked yet.
  }
}

void JournalWriter::take_sent() {
  eventfd_t count = 0;
  (void)::eventfd_read(sent_.get(), &count);  // Nothing there: somebody was faster.
}

std::uint64_t JournalWriter::waiting() const {
  const std::lock_guard lock(mutex_);
  return queue_.size() + (sending_ ? 1 : 0);
}

std::uint64_t JournalWriter::accepted() const {
  const std::lock_guard lock(mutex_);
  return accepted_;
}

std::uint64_t JournalWriter::settled() const {
  const std::lock_guard lock(mutex_);
  return accepted_ - queue_.size() - (sending_ ? 1 : 0);
}

bool JournalWriter::healthy() const {
  const std::lock_guard lock(mutex_);
  return lost_ == 0;
}

Result<bool> has_record(const std::string& event_id) {
  sd_journal* opened = nullptr;
  if (const int r = sd_journal_open(&opened, SD_JOURNAL_LOCAL_ONLY); r < 0) return errno_error("read the journal", -r);
  const std::unique_ptr<sd_journal, decltype(&sd_journal_close)> journal(opened, &sd_journal_close);
  const std::string match = "ANALYSIS_EVENT_ID=" + event_id;
  int r = sd_journal_add_match(journal.get(), match.data(), match.size());
  if (r >= 0) r = sd_journal_seek_tail(journal.get());
  if (r >= 0) r = sd_journal_previous(journal.get());
  if (r < 0) return errno_error("read the journal", -r);
  return r > 0;
}

}  // namespace aw::journal
