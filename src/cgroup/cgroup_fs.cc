// SPDX-License-Identifier: Apache-2.0
#include "cgroup/cgroup_fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/descriptor_reserve.h"
#include "base/failpoint.h"
#include "cgroup/parse.h"

namespace aw::cgroup {
namespace {

using supervise::Counters;
using supervise::Gauge;
using supervise::LimitsFound;
using supervise::MemoryEvents;
using supervise::MemoryPressure;
using supervise::MemoryStat;
using supervise::RunKey;

constexpr char kMemoryEvents[] = "memory.events";
constexpr char kOwnMemoryEvents[] = "memory.events.local";  // Of its own limits; memory.events has those below, too.
constexpr char kMemoryStat[] = "memory.stat";
constexpr char kMemoryPressure[] = "memory.pressure";
constexpr char kMemoryCurrent[] = "memory.current";
constexpr char kMemoryPeak[] = "memory.peak";
constexpr char kMemoryHigh[] = "memory.high";
constexpr char kMemoryMax[] = "memory.max";
constexpr char kMemorySwapMax[] = "memory.swap.max";
constexpr char kCgroupEvents[] = "cgroup.events";
constexpr char kCgroupProcs[] = "cgroup.procs";
constexpr char kCgroupKill[] = "cgroup.kill";
constexpr char kCgroupFreeze[] = "cgroup.freeze";
constexpr char kCpuStat[] = "cpu.stat";
constexpr char kCpuMax[] = "cpu.max";
constexpr char kCpuWeight[] = "cpu.weight";
constexpr char kPidsMax[] = "pids.max";
constexpr char kPidsCurrent[] = "pids.current";
constexpr char kPidsEvents[] = "pids.events";

/// The files that hold limits. A write to one of them, by whoever it is, is reported by its name.
constexpr std::string_view kLimitFiles[] = {kMemoryHigh, kMemoryMax, kMemorySwapMax, kPidsMax, kCpuMax, kCpuWeight};

/// cgroup2 has had extended attributes of users since Linux 5.7, for whoever may write to the directory.
constexpr mode_t kRunsMode = 0711;
constexpr char kNote[] = "user.analysis_watchdog.run";
/// PID_MAX_LIMIT: pids.max takes nothing above it but "max".
constexpr std::uint64_t kMostTasks = 4'194'304;
constexpr std::size_t kMostNoteBytes = 65'536;  // XATTR_SIZE_MAX

/// A run's cgroup files are small; cgroup.procs of a fork bomb is not, and has a reader of its own.
using Buffer = std::array<char, 16384>;

Result<std::string_view> read_once(int fd, const char* name, Buffer& buffer) {
  const ssize_t size = ::pread(fd, buffer.data(), buffer.size(), 0);
  if (size < 0) return errno_error(name);
  return std::string_view(buffer.data(), static_cast<std::size_t>(size));
}

/// For a moment: what is kept is opened without the reserve.
UniqueFd open_briefly(int dir, const char* name, int flags) {
  return UniqueFd(open_with_reserve([=] { return ::openat(dir, name, flags | O_CLOEXEC); }));
}

Result<std::string_view> read_at(int dir, const char* name, Buffer& buffer) {
  if (const int e = AW_FAILPOINT_ERRNO("cgroup.read-file", EMFILE, ENOMEM)) return errno_error(name, e);
  const UniqueFd fd = open_briefly(dir, name, O_RDONLY);
  if (!fd) return errno_error(name);
  return read_once(fd.get(), name, buffer);
}

Result<void> write_at(int dir, const char* name, std::string_view text) {
  if (const int e = AW_FAILPOINT_ERRNO("cgroup.open-to-write", EMFILE)) return errno_error(name, e);
  const UniqueFd fd = open_briefly(dir, name, O_WRONLY);
  if (!fd) return errno_error(name);
  if (::write(fd.get(), text.data(), text.size()) < 0) return errno_error(name);
  return {};
}

Result<void> read_procs_at(int dir, std::vector<pid_t>& pids) {
  if (const int e = AW_FAILPOINT_ERRNO("cgroup.read-procs", EMFILE, ENOMEM)) return errno_error(kCgroupProcs, e);
  const UniqueFd fd = open_briefly(dir, kCgroupProcs, O_RDONLY);
  if (!fd) return errno_error(kCgroupProcs);
  std::string text;
  Buffer buffer;
  for (;;) {
    const ssize_t size = ::read(fd.get(), buffer.data(), buffer.size());
    if (size < 0) return errno_error(kCgroupProcs);
    if (size == 0) return parse_procs(text, pids);
    text.append(buffer.data(), static_cast<std::size_t>(size));
  }
}

/// The kernel shows what is outside a cgroup namespace as "/../…". There are no symbolic links in a cgroup2 filesystem;
/// openat2(), which would look at all of that, is taken from a service with RestrictSUIDSGID=.
bool leads_out(std::string_view path) {
  if (path.starts_with('/')) return true;
  while (true) {
    const std::size_t slash = path.find('/');
    if (path.substr(0, slash) == "..") return true;
    if (slash == std::string_view::npos) return false;
    path.remove_prefix(slash + 1);
  }
}

Result<UniqueFd> open_dir_at(int dir, const char* path) {
  if (const int e = AW_FAILPOINT_ERRNO("cgroup.open-dir", EMFILE)) return errno_error(std::string("cgroup ") + path, e);
  if (dir != AT_FDCWD && leads_out(path)) return errno_error(std::string("cgroup ") + path, EXDEV);
  UniqueFd fd(::openat(dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return errno_error(std::string("cgroup ") + path);
  return fd;
}

/// A cgroup below one that is held, while it is looked at.
UniqueFd open_child_at(int dir, const char* name) {
  return open_briefly(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

/// cpu.max as systemd writes it: in periods of 100 ms, longer where the quota of one would be below 1 ms.
std::string quota_text(Span per_second) {
  constexpr Span kPeriod = std::chrono::milliseconds{100};
  constexpr Span kLeastQuota = std::chrono::milliseconds{1};
  constexpr Span kSecond = std::chrono::seconds{1};
  if (per_second == kForever) return "max " + std::to_string(kPeriod.count());
  const Span quota = std::max(per_second, kLeastQuota);
  const Span period = std::clamp(kLeastQuota * kSecond.count() / quota.count(), kPeriod, kSecond);
  const auto seconds = quota / kSecond;  // Apart from the rest: the product must not overflow.
  const Span of_period = Span(seconds * period.count() + (quota % kSecond).count() * period.count() / kSecond.count());
  return std::to_string(std::max(of_period, kLeastQuota).count()) + " " + std::to_string(period.count());
}

/// Calls f(name) for each directory in `dir`.
template <class F>
Result<void> for_each_child(int dir, F&& f) {
  if (const int e = AW_FAILPOINT_ERRNO("cgroup.list", EMFILE)) return errno_error("list a cgroup", e);
  // A descriptor of its own: fdopendir() takes it over and moves its offset.
  UniqueFd own = open_child_at(dir, ".");
  if (!own) return errno_error("list a cgroup");
  DIR* listing = ::fdopendir(own.get());
  if (listing == nullptr) return errno_error("list a cgroup");
  (void)own.release();
  while (const dirent* entry = ::readdir(listing)) {
    const std::string_view name = entry->d_name;
    if (entry->d_type == DT_DIR && name != "." && name != "..") f(entry->d_name);
  }
  ::closedir(listing);
  return {};
}

Result<void> read_procs_below(int dir, int depth, std::vector<pid_t>& pids) {
  if (auto own = read_procs_at(dir, pids); !own && own.error().code != std::errc::operation_not_supported) return own;
  if (depth == 0) return {};
  return for_each_child(dir, [&](const char* name) {
    const UniqueFd child = open_child_at(dir, name);
    if (child) (void)read_procs_below(child.get(), depth - 1, pids);  // Gone between listing and reading: empty.
  });
}

}  // namespace

/// A run's slice.
class HeldCgroup final : public supervise::RunCgroup {
 public:
  HeldCgroup(CgroupFs& owner, std::string path, UniqueFd dir)
      : owner_(owner), path_(std::move(path)), dir_(std::move(dir)) {}
  ~HeldCgroup() override {
    owner_.end_polling(key_, *this);
    owner_.remove_watch(watch_);
  }
  HeldCgroup(const HeldCgroup&) = delete;
  HeldCgroup& operator=(const HeldCgroup&) = delete;

  /// Opens what is read often. inotify reports a file by its name in the watched directory only while its inode is
  /// in memory, so holding these two open is also what makes the watch work.
  Result<void> begin(RunKey key) {
    if (const int e = AW_FAILPOINT_ERRNO("cgroup.hold-files", EMFILE))
      return errno_error(kMemoryEvents, e).within(path_);
    for (auto [fd, name] :
         {std::pair{&memory_events_, kMemoryEvents}, {&cgroup_events_, kCgroupEvents}, {&memory_stat_, kMemoryStat}}) {
      fd->reset(::openat(dir_.get(), name, O_RDONLY | O_CLOEXEC));
      if (!*fd) return errno_error(name).within(path_);
    }
    // Held, so that a kill needs no descriptor. Where the kernel has none for it, write_kill() says why.
    kill_.reset(::openat(dir_.get(), kCgroupKill, O_WRONLY | O_CLOEXEC));
    if (!kill_ && (errno == EMFILE || errno == ENFILE)) return errno_error(kCgroupKill).within(path_);
    key_ = key;
    if (auto watched = watch(); !watched) {
      // The user's watches are used up, or the memory for them: it can still be looked at.
      const auto& code = watched.error().code;
      if (code != std::errc::no_space_on_device && code != std::errc::not_enough_memory) {
        return std::move(watched).error().within(path_);
      }
      owner_.begin_polling(key, *this, watched.error().message);
    }
    return {};
  }

  Result<void> watch() {
    auto watch = owner_.add_watch(key_, dir_.get());
    if (!watch) return std::move(watch).error();
    watch_ = *watch;
    return {};
  }

  const std::string& path() const override { return path_; }
  Result<MemoryEvents> read_memory_events() const override {
    if (const int e = AW_FAILPOINT_ERRNO("cgroup.read-memory-events", ENOMEM)) return errno_error(kMemoryEvents, e);
    return read_held(memory_events_, kMemoryEvents, parse_memory_events);
  }
  Result<MemoryStat> read_memory_stat() const override {
    if (const int e = AW_FAILPOINT_ERRNO("cgroup.read-memory-stat", ENOMEM)) return errno_error(kMemoryStat, e);
    return read_held(memory_stat_, kMemoryStat, parse_memory_stat);
  }
  Result<bool> read_populated() const override {
    if (const int e = AW_FAILPOINT_ERRNO("cgroup.read-events", ENOMEM)) return errno_error(kCgroupEvents, e);
    return read_held(cgroup_events_, kCgroupEvents, parse_populated);
  }
  Result<MemoryPressure> read_memory_pressure() const override {
    return read_named(kMemoryPressure, parse_memory_pressure);
  }

  Result<std::vector<pid_t>> read_processes() const override {
    std::vector<pid_t> pids;
    // Deep enough for what a delegated scope makes below itself.
    if (auto done = read_procs_below(dir_.get(), 8, pids); !done) return std::move(done).error().within(path_);
    std::sort(pids.begin(), pids.end());
    pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
    return pids;
  }

  Counters read_counters() const override {
    Counters counters;
    if (auto v = read_named(kMemoryCurrent, parse_limit)) counters.memory_current = Bytes(*v);
    if (auto v = read_named(kMemoryPeak, parse_limit)) counters.memory_peak = Bytes(*v);
    if (auto v = read_named(kCpuStat, parse_cpu_usage)) counters.cpu = *v;
    if (auto v = read_named(kPidsCurrent, parse_limit)) counters.tasks = *v;
    counters.tasks_refused = read_refused();
    return counters;
  }

  Result<Gauge> read_gauge() const override {
    if (const int e = AW_FAILPOINT_ERRNO("cgroup.read-gauge", EMFILE, ENOMEM)) return errno_error(kMemoryCurrent, e);
    const auto current = read_kept(memory_current_, kMemoryCurrent, parse_limit);
    if (!current) return current.error();
    auto stat = read_held(memory_stat_, kMemoryStat, parse_memory_stat);
    if (!stat) return std::move(stat).error();
    const auto cpu = read_kept(cpu_stat_, kCpuStat, parse_cpu_usage);
    if (!cpu) return cpu.error();
    const auto tasks = read_kept(pids_current_, kPidsCurrent, parse_limit);
    if (!tasks) return tasks.error();
    return Gauge{Bytes(*current), *std::move(stat), *cpu, *tasks};
  }

  Result<void> write_tripwire(Bytes limit) override {
    if (const int e = AW_FAILPOINT_ERRNO("cgroup.write-tripwire", ENOMEM)) return errno_error(kMemoryHigh, e);
    return write(kMemoryHigh, limit.is_infinite() ? "max" : std::to_string(limit.count()));
  }
  Result<LimitsFound> read_limits() const override {
    LimitsFound found;
    // A file that is not there is a value that is not there; whether the cgroup is, cgroup.events tells.
    if (auto there = read_populated(); !there) return std::move(there).error();
    if (auto v = read_named(kMemoryHigh, parse_limit)) found.tripwire = Bytes(*v);
    if (auto v = read_named(kMemoryMax, parse_limit)) found.ceiling = Bytes(*v);
    if (auto v = read_named(kMemorySwapMax, parse_limit)) found.swap = Bytes(*v);
    if (auto v = read_named(kPidsMax, parse_limit)) found.tasks_max = *v;
    if (auto v = read_named(kCpuMax, parse_quota)) found.cpu_quota_per_second = *v;
    if (auto v = read_named(kCpuWeight, parse_limit)) found.cpu_weight = *v;
    (void)for_each_child(dir_.get(), [&](const char* name) {
      Buffer buffer;
      if (!std::string_view(name).ends_with(".scope")) return;
      const auto scope = open_dir_at(dir_.get(), name);
      if (!scope) return;
      const auto text = read_at(scope->get(), supervise::kGroupOomFile, buffer);
      const auto value = text ? parse_limit(*text) : Result<std::uint64_t>(Error(text.error()));
      if (value) found.scopes.emplace_back(name, *value == 1);
    });
    std::sort(found.scopes.begin(), found.scopes.end());
    return found;
  }
  Result<void> write_limits(const supervise::SliceLimits& limits) override {
    Result<void> done;
    const auto attempt = [&](const char* name, const std::string& text) {
      auto written = write(name, text);
      if (!written && done) done = std::move(written);
    };
    const auto text_of = [](std::uint64_t limit) {
      return limit == supervise::kUnlimited ? "max" : std::to_string(limit);
    };
    attempt(kMemoryHigh, text_of(limits.tripwire.count()));
    attempt(kMemoryMax, text_of(limits.ceiling.count()));
    attempt(kMemorySwapMax, "0");
    attempt(kPidsMax, text_of(limits.tasks_max > kMostTasks ? supervise::kUnlimited : limits.tasks_max));
    attempt(kCpuMax, quota_text(limits.cpu_quota_per_second));
    if (limits.cpu_weight) attempt(kCpuWeight, std::to_string(*limits.cpu_weight));
    return done;
  }
  Result<void> write_group_oom(const std::string& scope) override {
    const auto dir = open_dir_at(dir_.get(), scope.c_str());
    if (!dir) return dir.error();
    auto done = write_at(dir->get(), supervise::kGroupOomFile, "1");
    if (!done) return std::move(done).error().within(path_ + "/" + scope);
    return {};
  }
  Result<void> write_kill() override {
    if (const int e = AW_FAILPOINT_ERRNO("cgroup.kill", EMFILE, ENOMEM)) return errno_error(kCgroupKill, e);
    auto written = kill_ ? write_held(kill_, kCgroupKill, "1") : write(kCgroupKill, "1");
    AW_FAILPOINT("cgroup.killed");
    return written;
  }
  Result<void> write_thaw() override {
    if (const int e = AW_FAILPOINT_ERRNO("cgroup.thaw", ENOMEM)) return errno_error(kCgroupFreeze, e);
    // Each scope too: whoever froze one wrote there.
    (void)for_each_child(dir_.get(), [&](const char* name) {
      if (const UniqueFd child = open_child_at(dir_.get(), name)) (void)write_at(child.get(), kCgroupFreeze, "0");
    });
    return write(kCgroupFreeze, "0");
  }
  Result<void> write_note(const std::string& note) override {
    if (const int e = AW_FAILPOINT_ERRNO("cgroup.set-note", ENOSPC, ENOMEM)) return errno_error(kNote, e).within(path_);
    if (::fsetxattr(dir_.get(), kNote, note.data(), note.size(), 0) < 0) return errno_error(kNote).within(path_);
    AW_FAILPOINT("cgroup.note-set");
    return {};
  }
  Result<std::string> read_note() const override {
    if (const int e = AW_FAILPOINT_ERRNO("cgroup.get-note", ENOMEM)) return errno_error(kNote, e).within(path_);
    std::string note(kMostNoteBytes, '\0');
    const ssize_t size = ::fgetxattr(dir_.get(), kNote, note.data(), note.size());
    if (size < 0) return errno_error(kNote).within(path_);
    note.resize(static_cast<std::size_t>(size));
    return note;
  }
  std::optional<WallTime> find_last_removal() const override {
    // kernfs renews the times of a directory when a child is removed, but only where it keeps times at all: since an
    // attribute was set there (fs/kernfs/dir.c, __kernfs_remove).
    struct stat status {};
    if (::fstat(dir_.get(), &status) < 0 || ::fgetxattr(dir_.get(), kNote, nullptr, 0) < 0) return std::nullopt;
    return WallTime(std::chrono::duration_cast<Span>(std::chrono::seconds{status.st_mtim.tv_sec} +
                                                     std::chrono::nanoseconds{status.st_mtim.tv_nsec}));
  }

 private:
  /// Before Linux 6.11 a refused fork is counted where the process is, since then where the limit is (pids.c).
  std::optional<std::uint64_t> read_refused() const {
    auto refused = read_named(kPidsEvents, parse_pids_refused);
    if (!refused) return std::nullopt;
    (void)for_each_child(dir_.get(), [&](const char* name) {
      Buffer buffer;
      const auto child = open_dir_at(dir_.get(), name);
      const auto text =
          child ? read_at(child->get(), kPidsEvents, buffer) : Result<std::string_view>(Error(child.error()));
      const auto below = text ? parse_pids_refused(*text) : Result<std::uint64_t>(Error(text.error()));
      if (below) *refused += *below;  // Gone meanwhile: none.
    });
    return *refused;
  }

  template <class Parse>
  auto read_held(const UniqueFd& fd, const char* name, Parse parse) const -> decltype(parse(std::string_view())) {
    Buffer buffer;
    auto text = read_once(fd.get(), name, buffer);
    if (!text) return std::move(text).error().within(path_);
    return parse(*text);
  }
  /// The same of one that is opened when it is first wanted, without the reserve: a curve may have gaps.
  template <class Parse>
  auto read_kept(UniqueFd& fd, const char* name, Parse parse) const -> decltype(parse(std::string_view())) {
    if (!fd) fd.reset(::openat(dir_.get(), name, O_RDONLY | O_CLOEXEC));
    if (!fd) return errno_error(name).within(path_);
    return read_held(fd, name, parse);
  }
  template <class Parse>
  auto read_named(const char* name, Parse parse) const -> decltype(parse(std::string_view())) {
    Buffer buffer;
    auto text = read_at(dir_.get(), name, buffer);
    if (!text) return std::move(text).error().within(path_);
    return parse(*text);
  }
  Result<void> write_held(const UniqueFd& fd, const char* name, std::string_view text) {
    if (::pwrite(fd.get(), text.data(), text.size(), 0) < 0) return errno_error(name).within(path_);
    return {};
  }
  Result<void> write(const char* name, std::string_view text) {
    auto done = write_at(dir_.get(), name, text);
    if (!done) return std::move(done).error().within(path_);
    return {};
  }

  CgroupFs& owner_;
  std::string path_;
  UniqueFd dir_;
  UniqueFd memory_events_;
  UniqueFd memory_stat_;
  UniqueFd cgroup_events_;
  UniqueFd kill_;
  mutable UniqueFd memory_current_;  // These three for samples.
  mutable UniqueFd cpu_stat_;
  mutable UniqueFd pids_current_;
  RunKey key_ = 0;
  int watch_ = -1;
};

CgroupFs::CgroupFs(loop::Loop& loop, std::string parent, Listener listener, Watching watching)
    : parent_(std::move(parent)), listener_(std::move(listener)), watching_(std::move(watching)), loop_(loop) {}

CgroupFs::~CgroupFs() = default;

Result<std::unique_ptr<CgroupFs>> CgroupFs::open(loop::Loop& loop, const std::string& mount, std::string parent,
                                                 Listener listener) {
  struct statfs fs {};
  if (::statfs(mount.c_str(), &fs) < 0) return errno_error(mount);
  if (fs.f_type != CGROUP2_SUPER_MAGIC) {
    return invalid(mount + " is no cgroup2 mount; boot with systemd.unified_cgroup_hierarchy=1");
  }
  return open_unchecked(loop, mount, std::move(parent), std::move(listener), {});
}

Result<std::unique_ptr<CgroupFs>> CgroupFs::open_fixture(loop::Loop& loop, const std::string& mount, std::string parent,
                                                         Listener listener, Watching watching) {
  return open_unchecked(loop, mount, std::move(parent), std::move(listener), std::move(watching));
}

Result<std::unique_ptr<CgroupFs>> CgroupFs::open_unchecked(loop::Loop& loop, const std::string& mount,
                                                           std::string parent, Listener listener, Watching watching) {
  std::unique_ptr<CgroupFs> fs(new CgroupFs(loop, std::move(parent), std::move(listener), std::move(watching)));
  auto root = open_dir_at(AT_FDCWD, mount.c_str());
  if (!root) return std::move(root).error();
  fs->root_ = std::move(*root);
  if (const int e = AW_FAILPOINT_ERRNO("cgroup.inotify", EMFILE)) return errno_error("inotify", e);
  fs->inotify_.reset(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!fs->inotify_) return errno_error("inotify");
  CgroupFs* self = fs.get();
  auto readable = loop.watch_fd(self->inotify_.get(), EPOLLIN, loop::Priority::kKill, "cgroup events",
                                [self](const Now& now) { self->on_readable(now); });
  if (!readable) return std::move(readable).error();
  fs->readable_ = std::move(*readable);
  auto polling =
      loop.add_timer(loop::Priority::kKill, "cgroups without a watch", [self](const Now& now) { self->poll(now); });
  if (!polling) return std::move(polling).error();
  fs->poll_ = std::move(*polling);
  return fs;
}

void CgroupFs::on_readable(const Now& now) {
  AW_FAILPOINT("cgroup.inotify-read");
  alignas(inotify_event) std::array<char, 65536> buffer;
  const ssize_t size = ::read(inotify_.get(), buffer.data(), buffer.size());
  for (ssize_t at = 0; at < size;) {
    const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
    at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
    if ((event->mask & IN_Q_OVERFLOW) != 0) lost_ = true;
    const auto watched = watched_.find(event->wd);
    if (watched == watched_.end()) continue;  // A watch that was just removed.
    // The name is padded with zeros to the length.
    const std::string_view name = event->len == 0 ? std::string_view() : std::string_view(event->name);
    const bool limit = std::find(std::begin(kLimitFiles), std::end(kLimitFiles), name) != std::end(kLimitFiles);
    (limit ? limits_written_ : dirty_).insert(watched->second);
  }
  on_dirty(now);
}

void CgroupFs::on_dirty(const Now& now) {
  // Listeners may drop cgroups, and with them watches, while they are told.
  const auto dirty = std::exchange(dirty_, {});
  const auto limits_written = std::exchange(limits_written_, {});
  if (std::exchange(lost_, false)) return listener_.on_lost(now);
  for (const RunKey key : dirty) listener_.on_changed(key, now);
  for (const RunKey key : limits_written) listener_.on_limits_written(key, now);
}

Result<int> CgroupFs::add_watch(RunKey key, int dir) {
  if (const int e = AW_FAILPOINT_ERRNO("cgroup.inotify-add", ENOSPC, ENOMEM)) return errno_error("inotify watch", e);
  const std::string path = "/proc/self/fd/" + std::to_string(dir);
  constexpr std::uint32_t kMask = IN_MODIFY | IN_ONLYDIR;
  const int watch = watching_.add_watch ? watching_.add_watch(inotify_.get(), path.c_str(), kMask)
                                        : ::inotify_add_watch(inotify_.get(), path.c_str(), kMask);
  if (watch < 0) return errno_error("inotify watch");
  watched_[watch] = key;
  return watch;
}

void CgroupFs::remove_watch(int watch) {
  if (watch < 0) return;
  watched_.erase(watch);
  (void)::inotify_rm_watch(inotify_.get(), watch);  // A removed cgroup keeps its watch until this (measured).
}

void CgroupFs::begin_polling(RunKey key, HeldCgroup& held, const std::string& why) {
  const Instant now = loop_.now().monotonic;
  if (polled_.empty()) {
    notice("no watch for " + held.path() + " (" + why +
           "); what has none is looked at every 100 ms until there are watches again (fs.inotify.max_user_watches)");
    watch_again_ = now + watching_.again;
    loop::Loop::set_timer(poll_, now + watching_.poll);
  }
  polled_[key] = &held;
}

void CgroupFs::end_polling(RunKey key, const HeldCgroup& held) {
  const auto it = polled_.find(key);
  if (it == polled_.end() || it->second != &held) return;
  polled_.erase(it);
  if (!polled_.empty()) return;
  loop::Loop::set_timer(poll_, kNever);
  notice("no run is without a watch any more");
}

void CgroupFs::poll(const Now& now) {
  if (now.monotonic >= watch_again_) watch_polled(now);
  std::vector<RunKey> keys;
  for (const auto& [key, held] : polled_) keys.push_back(key);
  // Listeners may drop cgroups, and with them what is polled, while they are told.
  for (const RunKey key : keys) {
    if (polled_.contains(key)) listener_.on_changed(key, now);
  }
  if (!polled_.empty()) loop::Loop::set_timer(poll_, now.monotonic + watching_.poll);
}

void CgroupFs::watch_polled(const Now& now) {
  watch_again_ = now.monotonic + watching_.again;
  const auto polled = polled_;
  for (const auto& [key, held] : polled) {
    if (!polled_.contains(key)) continue;  // Dropped by who was told of the one before.
    if (!held->watch()) return;
    end_polling(key, *held);
    listener_.on_changed(key, now);  // What has happened until here no watch will tell.
  }
}

void CgroupFs::notice(const std::string& sentence) {
  if (listener_.on_notice) listener_.on_notice(sentence);
}

std::string CgroupFs::relative(const std::string& slice) const {
  // The parent slice itself, or a slice in it.
  const std::string path = parent_.ends_with("/" + slice) ? parent_ : parent_ + "/" + slice;
  return path.substr(1);
}

Result<std::unique_ptr<supervise::RunCgroup>> CgroupFs::open(RunKey key, const std::string& slice) {
  const std::string path = relative(slice);
  auto dir = open_dir_at(root_.get(), path.c_str());
  if (!dir) return std::move(dir).error();
  // Whoever may read the directory may read its note, with labels and command line: nobody else may then, and the
  // scopes in it are reached by their names. Before there is a note, and again for one of a daemon before us.
  (void)::fchmod(dir->get(), kRunsMode);  // It is ours; and a run that is seen is better than one that is not held.
  auto held = std::make_unique<HeldCgroup>(*this, "/" + path, std::move(*dir));
  if (auto begun = held->begin(key); !begun) return std::move(begun).error();
  return std::unique_ptr<supervise::RunCgroup>(std::move(held));
}

Result<void> CgroupFs::move(pid_t pid, const std::string& slice, const std::string& scope) {
  return put_back(pid, "/" + relative(slice) + "/" + scope);
}

Result<std::vector<std::string>> CgroupFs::list_slices() const {
  const auto parent = open_dir_at(root_.get(), parent_.substr(1).c_str());
  std::vector<std::string> slices;
  // systemd makes the parent slice with the first run.
  if (!parent && parent.error().code == std::errc::no_such_file_or_directory) return slices;
  if (!parent) return parent.error();
  auto listed = for_each_child(parent->get(), [&](const char* name) {
    const std::string_view slice = name;
    if (slice.starts_with("analysis-") && slice.ends_with(".slice")) slices.emplace_back(slice);
  });
  if (!listed) return std::move(listed).error();
  std::sort(slices.begin(), slices.end());
  return slices;
}

Result<void> CgroupFs::put_back(pid_t pid, const std::string& path) {
  const auto dir = open_dir_at(root_.get(), path == "/" ? "." : path.substr(1).c_str());
  if (!dir) return dir.error();
  if (const int e = AW_FAILPOINT_ERRNO("cgroup.move", ENOMEM, EAGAIN)) return errno_error("move a process", e);
  auto done = write_at(dir->get(), kCgroupProcs, std::to_string(pid));
  AW_FAILPOINT("cgroup.moved");
  if (!done) return std::move(done).error().within("move process " + std::to_string(pid) + " to " + path);
  return {};
}

std::vector<supervise::Ancestor> CgroupFs::read_ancestors() const {
  std::vector<supervise::Ancestor> ancestors;
  for (std::string path = parent_; path.size() > 1; path.resize(path.rfind('/'))) {
    Buffer buffer;
    const auto dir = open_dir_at(root_.get(), path.substr(1).c_str());
    if (!dir) continue;
    const auto text = read_at(dir->get(), kOwnMemoryEvents, buffer);
    const auto events = text ? parse_memory_events(*text) : Result<MemoryEvents>(Error(text.error()));
    if (events) ancestors.push_back({path, events->oom});
  }
  return ancestors;
}

std::size_t CgroupFs::lift_tripwires() {
  const auto parent = open_dir_at(root_.get(), parent_.substr(1).c_str());
  if (!parent) return 0;
  std::size_t lifted = 0;
  (void)for_each_child(parent->get(), [&](const char* name) {
    const auto run = open_dir_at(parent->get(), name);
    if (run && write_at(run->get(), kMemoryHigh, "max")) ++lifted;
  });
  return lifted;
}

namespace {

/// cgroup.kill came with Linux 5.14; every cgroup but the root has it.
Result<void> check_kill(int root) {
  bool found = false;
  (void)for_each_child(root, [&](const char* name) {
    if (::faccessat(root, (std::string(name) + "/" + kCgroupKill).c_str(), F_OK, 0) == 0) found = true;
  });
  if (found) return {};
  return invalid("this kernel has no cgroup.kill; it came with Linux 5.14");
}

}  // namespace

Result<std::vector<std::string>> read_missing_controllers(const std::string& mount, const std::string& path) {
  const auto dir = open_dir_at(AT_FDCWD, (mount + path).c_str());
  if (!dir) return dir.error();
  Buffer buffer;
  const auto controllers = read_at(dir->get(), "cgroup.controllers", buffer);
  if (!controllers) return controllers.error();
  const std::string present = " " + std::string(controllers->substr(0, controllers->find('\n'))) + " ";
  std::vector<std::string> missing;
  for (const char* wanted : {"memory", "pids", "cpu"}) {
    if (present.find(std::string(" ") + wanted + " ") == std::string::npos) missing.emplace_back(wanted);
  }
  return missing;
}

Result<void> check_host(const std::string& mount) {
  struct statfs fs {};
  if (::statfs(mount.c_str(), &fs) < 0) return errno_error(mount);
  if (fs.f_type != CGROUP2_SUPER_MAGIC) {
    return invalid("this host runs cgroup v1 or a hybrid of both (" + mount +
                   " is no cgroup2 mount); boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line");
  }
  const auto root = open_dir_at(AT_FDCWD, mount.c_str());
  if (!root) return root.error();
  const auto missing = read_missing_controllers(mount, "");
  if (!missing) return missing.error();
  if (!missing->empty()) {
    const std::string& wanted = missing->front();
    return invalid("the " + wanted + " controller is not available on cgroup v2 here; remove cgroup_disable=" + wanted +
                   " and cgroup_no_v1= from the kernel command line");
  }
  if (auto kill = check_kill(root->get()); !kill) return kill;
  return {};
}

Result<void> check_writable(const std::string& mount, const std::string& own) {
  const auto cannot = [](Error why) {
    return std::move(why).within(
        "cgroups cannot be written here, so nothing could be ended; in a container or a sandbox they have to be "
        "mounted rw, and ProtectControlGroups= be off");
  };
  const auto dir = open_dir_at(AT_FDCWD, (mount + own).c_str());
  if (!dir) return cannot(dir.error());
  // The root has no such file; nobody starts us there but by hand.
  auto written = write_at(dir->get(), kCgroupFreeze, "0");
  if (!written && own != "/") return cannot(written.error());
  constexpr char kTrial[] = "user.analysis_watchdog.trial";
  if (::fsetxattr(dir->get(), kTrial, "1", 1, 0) < 0 || ::fremovexattr(dir->get(), kTrial) < 0) {
    return cannot(errno_error("extended attributes of users (Linux 5.7)"));
  }
  return {};
}

}  // namespace aw::cgroup
