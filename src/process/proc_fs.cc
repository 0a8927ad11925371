// SPDX-License-Identifier: Apache-2.0
#include "process/proc_fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>

#include "base/descriptor_reserve.h"
#include "base/failpoint.h"
#include "base/numbers.h"
#include "process/parse.h"
#include "supervise/refusal.h"

namespace aw::process {
namespace {

using supervise::ProcessHandle;
using supervise::ProcessKey;
using supervise::ProcessStat;
using supervise::ProcessSummary;
using supervise::Refusal;

constexpr std::size_t kCmdlineLimit = 4096;
constexpr std::size_t kCommLimit = 64;

std::string proc_path(pid_t pid, const char* file) { return "/proc/" + std::to_string(pid) + "/" + file; }

/// A file of /proc as it is now, up to `limit` bytes.
Result<std::string> read_text(const std::string& path, std::size_t limit = 4096) {
  if (const int e = AW_FAILPOINT_ERRNO("process.read-proc", EMFILE, ENOMEM)) return errno_error(path, e);
  // A moment only, and a kill needs it to know who is in the cgroup.
  const UniqueFd fd(open_with_reserve([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); }));
  if (!fd) return errno_error(path);
  std::string text(limit, '\0');
  std::size_t size = 0;
  while (size < limit) {
    const ssize_t got = ::read(fd.get(), text.data() + size, limit - size);
    if (got < 0) return errno_error(path);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return text;
}

/// The same; nothing if the process is gone or not ours to read.
std::optional<std::string> find_text(const std::string& path, std::size_t limit = 4096) {
  auto text = read_text(path, limit);
  return text ? std::optional(*std::move(text)) : std::nullopt;
}

/// What was ordered there, as the system call itself would return it.
int fail(int error) {
  errno = error;
  return -1;
}

int pidfd_open(pid_t pid) {
  if (const int e = AW_FAILPOINT_ERRNO("process.pidfd-open", EMFILE, ENOMEM)) return fail(e);
  return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

int pidfd_send_signal(int pidfd, int signal) {
  if (const int e = AW_FAILPOINT_ERRNO("process.signal", EPERM)) return fail(e);
  const int sent = static_cast<int>(::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0));
  AW_FAILPOINT("process.signalled");
  return sent;
}

/// What fdinfo says of another file may be its owner's text: of an io_uring it is the names of files, line breaks and
/// all. The system call knows a pidfd by what it is. It takes a directory of /proc for one, too, of which fdinfo says
/// no pid.
bool is_pidfd(int fd) {
  if (::syscall(SYS_pidfd_send_signal, fd, 0, nullptr, 0) == 0) return true;
  // Not ours to signal, gone, of another pid namespace.
  return errno == EPERM || errno == ESRCH || errno == EINVAL;
}

bool is_readable(int fd) {
  pollfd poll{fd, POLLIN, 0};
  return ::poll(&poll, 1, 0) > 0;
}

/// The field of /proc/self/fdinfo/FD that says whose pidfd it is.
std::optional<pid_t> pid_of(int pidfd) {
  const auto info = find_text("/proc/self/fdinfo/" + std::to_string(pidfd));
  if (!info) return std::nullopt;
  const auto at = info->find("\nPid:\t");
  if (at == std::string::npos) return std::nullopt;
  const auto begin = at + 6;
  return parse_number<pid_t>(std::string_view(*info).substr(begin, info->find('\n', begin) - begin));
}

/// The pid of the process that a thread belongs to, as text; empty if it is gone.
std::string find_thread_group(pid_t tid) {
  const auto status = find_text(proc_path(tid, "status"));
  return std::string(status ? find_field(*status, "Tgid").value_or("") : "");
}

class Handle final : public ProcessHandle {
 public:
  Handle(loop::Loop& loop, UniqueFd fd, ProcessKey key) : loop_(loop), fd_(std::move(fd)), key_(key) {}

  ProcessKey key() const override { return key_; }
  int pidfd() const override { return fd_.get(); }
  // Readable when the whole thread group is gone; a leader thread in state Z may still have living threads (measured).
  bool alive() const override { return !is_readable(fd_.get()); }

  Result<void> signal(int signal) override {
    if (pidfd_send_signal(fd_.get(), signal) < 0) return errno_error("signal process " + std::to_string(key_.pid));
    return {};
  }

  Result<void> watch(std::function<void(const Now&)> ended) override {
    if (const int e = AW_FAILPOINT_ERRNO("process.watch", ENOSPC, ENOMEM)) return errno_error("watch a process", e);
    auto source = loop_.watch_fd(fd_.get(), EPOLLIN, loop::Priority::kProcess, "process end",
                                 [this, ended = std::move(ended)](const Now& now) {
                                   const auto keep = ended;  // Whoever is told may drop this handle.
                                   source_.reset();
                                   keep(now);
                                 });
    if (!source) return std::move(source).error();
    source_ = std::move(*source);
    return {};
  }

 private:
  loop::Loop& loop_;
  UniqueFd fd_;
  ProcessKey key_;
  loop::Source source_;
};

Error no_such_process(pid_t pid, const std::string& why) {
  return supervise::refuse(Refusal::kNoSuchProcess, "process " + std::to_string(pid) + " " + why);
}

std::string as_it_is(std::string_view text, std::size_t) { return std::string(text); }

class FoundCmdlines final : public supervise::Cmdlines {
 public:
  explicit FoundCmdlines(std::shared_ptr<const LockedFileReader::Texts> texts) : texts_(std::move(texts)) {}
  std::optional<std::string> find(pid_t pid) const override { return texts_->find(pid); }

 private:
  std::shared_ptr<const LockedFileReader::Texts> texts_;
};

class FoundShares final : public supervise::AnonymousShares {
 public:
  FoundShares(std::vector<pid_t> pids, std::shared_ptr<const LockedFileReader::Texts> rollups)
      : pids_(std::move(pids)), rollups_(std::move(rollups)) {}

  Bytes known() const override {
    Bytes sum(0);
    for (const pid_t pid : pids_) {
      const auto rollup = rollups_->find(pid);
      if (rollup) sum = sum + parse_anonymous_share(*rollup).value_or(Bytes(0));
    }
    return sum;
  }
  bool complete() const override {
    return std::all_of(pids_.begin(), pids_.end(), [this](pid_t pid) { return rollups_->find(pid).has_value(); });
  }

 private:
  const std::vector<pid_t> pids_;
  const std::shared_ptr<const LockedFileReader::Texts> rollups_;
};

}  // namespace

ProcFs::ProcFs(loop::Loop& loop) : ProcFs(loop, {}, opener_of("cmdline"), opener_of("smaps_rollup")) {}

ProcFs::ProcFs(loop::Loop& loop, Patience patience, LockedFileReader::Open open_cmdline,
               LockedFileReader::Open open_rollup)
    : loop_(loop),
      patience_(patience),
      page_size_(static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))),
      tick_(Span(std::chrono::seconds{1}) / ::sysconf(_SC_CLK_TCK)),
      cmdlines_(std::make_unique<LockedFileReader>("cmdline-reader", std::move(open_cmdline), readable_cmdline)),
      rollups_(std::make_unique<LockedFileReader>("rollup-reader", std::move(open_rollup), as_it_is)) {
  protect(1, "the system's manager");
  protect(::getpid(), "the watchdog itself");
}

void ProcFs::protect(pid_t pid, std::string what) {
  const auto stat = find_stat(pid);
  protected_.push_back({pid, stat ? stat->start_time : 0, std::move(what)});
}

std::optional<std::string> ProcFs::why_protected(pid_t pid) const {
  for (const auto& [number, start_time, what] : protected_) {
    if (number != pid) continue;
    // A bus may have gone, and another process have got its pid.
    const auto stat = start_time == 0 ? std::nullopt : find_stat(pid);
    if (!stat || stat->start_time == start_time) return what;
  }
  return std::nullopt;
}

Result<std::unique_ptr<ProcessHandle>> ProcFs::open(pid_t pid) {
  if (pid <= 0) return no_such_process(pid, "does not exist: a pid is a number from 1 up");
  UniqueFd fd(pidfd_open(pid));
  if (!fd && (errno == EINVAL || errno == ENOENT) && find_text(proc_path(pid, "stat"))) {
    // EINVAL before 6.9, ENOENT since: it is there, but it is not the first of its thread group.
    return no_such_process(pid, "is a thread of process " + find_thread_group(pid) + "; register that one");
  }
  if (!fd && errno != ESRCH && errno != EINVAL && errno != ENOENT) {
    return errno_error("open process " + std::to_string(pid));  // Says nothing about the process.
  }
  if (!fd) return no_such_process(pid, "does not exist");
  const auto stat = find_stat(pid);
  if (!stat && !is_readable(fd.get())) {
    return Error{std::make_error_code(std::errc::resource_unavailable_try_again),
                 "process " + std::to_string(pid) + " cannot be read"};
  }
  // Gone meanwhile, or gone and its pid another's: only what our pidfd still holds alive was read.
  if (!stat) return no_such_process(pid, "ended just now");
  if (is_readable(fd.get()) && stat->state != 'Z' && stat->state != 'X') return no_such_process(pid, "ended just now");
  return std::unique_ptr<ProcessHandle>(std::make_unique<Handle>(loop_, std::move(fd), key_of(*stat)));
}

Result<std::unique_ptr<ProcessHandle>> ProcFs::adopt(int pidfd) {
  UniqueFd fd(pidfd);
  const auto pid = is_pidfd(fd.get()) ? pid_of(fd.get()) : std::nullopt;
  if (!pid) {
    return supervise::refuse(Refusal::kNoSuchProcess, "the descriptor is no pidfd; make one with pidfd_open(2)");
  }
  if (*pid <= 0) {
    return supervise::refuse(Refusal::kNoSuchProcess, "the pidfd's process has ended, or is of another pid namespace");
  }
  // PIDFD_THREAD, since 6.9. It would end with the thread, and name a start time that is not the process's.
  if (const std::string group = find_thread_group(*pid); !group.empty() && group != std::to_string(*pid)) {
    return no_such_process(*pid, "is a thread of process " + group + "; send a pidfd of that one");
  }
  const auto stat = find_stat(*pid);
  if (!stat || (is_readable(fd.get()) && stat->state != 'Z')) return no_such_process(*pid, "has ended");
  return std::unique_ptr<ProcessHandle>(std::make_unique<Handle>(loop_, std::move(fd), key_of(*stat)));
}

std::optional<ProcessStat> ProcFs::find_stat(pid_t pid) const {
  auto stat = read_stat(pid);
  return stat ? std::optional(*std::move(stat)) : std::nullopt;
}

Result<ProcessStat> ProcFs::read_stat(pid_t pid) const {
  const auto text = read_text(proc_path(pid, "stat"));
  if (!text) return text.error();
  auto stat = parse_stat(*text);
  if (!stat) return std::move(stat).error();
  stat->comm = readable_cmdline(stat->comm, kCommLimit);  // Whatever bytes it gave itself: they go on the bus.
  return stat;
}

std::vector<ProcessStat> ProcFs::read_all() const {
  std::vector<ProcessStat> all;
  if (AW_FAILPOINT_ERRNO("process.list", EMFILE) != 0) return all;
  DIR* proc = ::opendir("/proc");
  if (proc == nullptr) return all;
  while (const dirent* entry = ::readdir(proc)) {
    const auto pid = parse_number<pid_t>(entry->d_name);
    if (!pid) continue;
    if (auto stat = find_stat(*pid)) all.push_back(std::move(*stat));
  }
  ::closedir(proc);
  return all;
}

bool ProcFs::has_children(pid_t pid) const {
  DIR* tasks = ::opendir(proc_path(pid, "task").c_str());
  if (tasks == nullptr) return true;
  bool found = false;
  while (const dirent* entry = ::readdir(tasks)) {
    const auto tid = parse_number<pid_t>(entry->d_name);
    if (!tid) continue;
    const auto children = find_text(proc_path(pid, "task/") + entry->d_name + "/children");
    if (!children || !children->empty()) found = true;
  }
  ::closedir(tasks);
  return found;
}

std::optional<std::string> ProcFs::find_cgroup(pid_t pid) const {
  const auto text = find_text(proc_path(pid, "cgroup"));
  if (!text) return std::nullopt;
  const auto path = parse_proc_cgroup(*text);
  if (!path) return std::nullopt;
  return std::string(*path);
}

std::optional<uid_t> ProcFs::find_uid(pid_t pid) const {
  const auto text = find_text(proc_path(pid, "status"));
  if (!text) return std::nullopt;
  return parse_sole_uid(*text);
}

std::string ProcFs::read_cmdline(pid_t pid) const {
  return cmdlines_->request({&pid, 1}, kCmdlineLimit, patience_.cmdline)->find(pid).value_or("");
}

std::string ProcFs::read_wait_channel(pid_t pid) const { return find_text(proc_path(pid, "wchan")).value_or(""); }

Bytes ProcFs::read_anonymous(pid_t pid) const {
  // statm: size resident shared …, in pages; resident less shared is what is anonymous.
  const auto text = find_text(proc_path(pid, "statm"));
  if (!text) return Bytes(0);
  std::array<std::uint64_t, 3> pages{};
  std::string_view rest = *text;
  for (std::uint64_t& field : pages) {
    const auto end = rest.find(' ');
    field = parse_number<std::uint64_t>(rest.substr(0, end)).value_or(0);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  }
  return Bytes((pages[1] - std::min(pages[1], pages[2])) * page_size_.count());
}

std::shared_ptr<const supervise::AnonymousShares> ProcFs::request_anonymous_shares(std::span<const pid_t> pids) const {
  constexpr std::size_t kRollup = 4096;  // About 800 bytes.
  return std::make_shared<FoundShares>(std::vector(pids.begin(), pids.end()),
                                       rollups_->request(pids, kRollup, patience_.shares));
}

supervise::ProcessSurvey ProcFs::survey(std::span<const pid_t> pids) const {
  supervise::ProcessSurvey survey;
  auto& largest = survey.largest;
  const auto end = std::chrono::steady_clock::now() + patience_.survey;
  for (const pid_t pid : pids) {
    // As many as a record shows in any case: that is soon done, and a busy machine is no reason to know nothing.
    if (survey.looked_at >= supervise::kMaxProcesses && std::chrono::steady_clock::now() >= end) break;
    ++survey.looked_at;
    const auto stat = find_stat(pid);
    if (!stat) continue;
    const Span cpu = tick_ * static_cast<std::int64_t>(stat->cpu_ticks);
    largest.push_back({pid, stat->parent, stat->comm, Bytes(stat->resident_pages * page_size_.count()), "", cpu});
  }
  std::stable_sort(largest.begin(), largest.end(),
                   [](const ProcessSummary& a, const ProcessSummary& b) { return a.resident > b.resident; });
  if (largest.size() > supervise::kMaxProcesses) largest.resize(supervise::kMaxProcesses);
  std::vector<pid_t> shown;
  for (const ProcessSummary& process : largest) shown.push_back(process.pid);
  survey.cmdlines =
      std::make_shared<FoundCmdlines>(cmdlines_->request(shown, supervise::kMaxProcessCmdline, patience_.cmdline));
  for (ProcessSummary& process : largest) process.cmdline = survey.cmdlines->find(process.pid).value_or("");
  return survey;
}

Result<void> ProcFs::signal_member(pid_t pid, const std::string& path, std::span<const int> signals) {
  const UniqueFd fd(open_with_reserve([pid] { return pidfd_open(pid); }));
  if (!fd) return errno_error("process " + std::to_string(pid));
  // Looked up while we hold it: whoever has this pid now is the one that is signalled, and it is in the cgroup.
  const auto where = find_cgroup(pid);
  if (!where || !supervise::is_within(*where, path)) {
    return Error{std::make_error_code(std::errc::no_such_process),
                 "process " + std::to_string(pid) + " is not in " + path};
  }
  for (const int signal : signals) {
    if (pidfd_send_signal(fd.get(), signal) < 0) return errno_error("signal process " + std::to_string(pid));
  }
  return {};
}

}  // namespace aw::process
