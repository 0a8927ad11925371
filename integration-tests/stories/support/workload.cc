// SPDX-License-Identifier: Apache-2.0
//
// What the analyses of the stories do. Each behaviour is a real one of real programs, made small and exact.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

using Words = std::vector<std::string>;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kMiB = std::size_t{1} << 20U;

long number(const Words& words, std::size_t at, long otherwise) {
  return at < words.size() ? std::strtol(words[at].c_str(), nullptr, 10) : otherwise;
}

void pause_ms(long ms) {
  timespec time{ms / 1000, ms % 1000 * 1'000'000};
  while (::nanosleep(&time, &time) < 0) {
  }
}

[[noreturn]] void stay() {
  for (;;) ::pause();
}

/// Safe in a signal handler. The file appears with its content.
void leave_word(const char* path, const char* word) {
  char hidden[512];
  std::size_t length = std::strlen(path);
  if (length + 5 > sizeof hidden) return;
  std::memcpy(hidden, path, length);
  std::memcpy(hidden + length, ".new", 5);
  const int fd = ::open(hidden, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  (void)!::write(fd, word, std::strlen(word));
  ::close(fd);
  ::rename(hidden, path);
}

void leave_word(const std::string& path, const std::string& word) { leave_word(path.c_str(), word.c_str()); }

void add_line(const char* path, const char* line) {
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  (void)!::write(fd, line, std::strlen(line));
  ::close(fd);
}

char* allocate(std::size_t size) {
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) ::_exit(3);
  ::madvise(memory, size, MADV_NOHUGEPAGE);
  return static_cast<char*>(memory);
}

void touch(char* memory, std::size_t size) {
  for (std::size_t at = 0; at < size; at += kPage) memory[at] = 1;
}

// A handler of SIGTERM that needs some time for its work, as one that saves a result does.
std::string g_marker;
long g_work_ms = 0;

void on_term(int) {
  add_line(g_marker.c_str(), "entered\n");
  timespec time{g_work_ms / 1000, g_work_ms % 1000 * 1'000'000};
  while (::nanosleep(&time, &time) < 0) {
  }
  add_line(g_marker.c_str(), "completed\n");
  ::_exit(0);
}

void handle_term(const std::string& marker, long work_ms) {
  g_marker = marker;
  g_work_ms = work_ms;
  struct sigaction action {};
  action.sa_handler = on_term;
  ::sigaction(SIGTERM, &action, nullptr);
}

pid_t fork_off(const std::function<void()>& child) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    child();
    ::_exit(0);
  }
  return pid;
}

// ---- memory ----

/// leak [STEP-KIB [PAUSE-MS [MARKER [WORK-MS]]]]: allocates for ever; with MARKER it handles SIGTERM.
int leak(const Words& words) {
  const auto step = static_cast<std::size_t>(number(words, 0, 256)) * 1024;
  const long pause = number(words, 1, 2);
  if (words.size() > 2) handle_term(words[2], number(words, 3, 200));
  for (;;) {
    touch(allocate(step), step);
    if (pause > 0) pause_ms(pause);
  }
}

/// leak-on-usr1 READY [STEP-KIB [PAUSE-MS]]: the same after SIGUSR1.
int leak_on_usr1(const Words& words) {
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &usr1, nullptr);
  leave_word(words.at(0), "ready");
  int got = 0;
  ::sigwait(&usr1, &got);
  return leak(Words(words.begin() + 1, words.end()));
}

/// hold MIB READY: has this much memory, and stays.
int hold(const Words& words) {
  const auto size = static_cast<std::size_t>(number(words, 0, 1)) * kMiB;
  touch(allocate(size), size);
  leave_word(words.at(1), "ready");
  stay();
}

/// share MIB CHILDREN READY: has this much memory, and children that share it with it.
int share(const Words& words) {
  const auto size = static_cast<std::size_t>(number(words, 0, 1)) * kMiB;
  touch(allocate(size), size);
  for (long i = 0; i < number(words, 1, 1); ++i) fork_off([] { stay(); });
  leave_word(words.at(2), "ready");
  stay();
}

/// hold-on-usr1 MIB READY HELD: the same after SIGUSR1.
int hold_on_usr1(const Words& words) {
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &usr1, nullptr);
  leave_word(words.at(1), "ready");
  int got = 0;
  ::sigwait(&usr1, &got);
  return hold({words.at(0), words.at(2)});
}

/// read FILE TIMES [ANON-MIB]: reads it from end to end, with this much memory of its own.
int read_file(const Words& words) {
  const auto anon = static_cast<std::size_t>(number(words, 2, 0)) * kMiB;
  if (anon > 0) touch(allocate(anon), anon);
  static char part[256 * 1024];
  for (long time = 0; time < number(words, 1, 1); ++time) {
    const int fd = ::open(words.at(0).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 4;
    ssize_t got = 0;
    while ((got = ::read(fd, part, sizeof part)) > 0) {
    }
    ::close(fd);
    if (got < 0) return 5;
  }
  return 0;
}

/// write FILE MIB.
int write_file(const Words& words) {
  const int fd = ::open(words.at(0).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  static char part[256 * 1024];
  std::memset(part, 'x', sizeof part);
  for (long written = 0; written < number(words, 1, 1) * 4; ++written) {
    if (::write(fd, part, sizeof part) != static_cast<ssize_t>(sizeof part)) return 4;
  }
  return ::close(fd) == 0 ? 0 : 5;
}

/// many-files FOLDER COUNT: dentries and inodes, which the kernel can take back, too.
int many_files(const Words& words) {
  ::mkdir(words.at(0).c_str(), 0755);
  for (long i = 0; i < number(words, 1, 1000); ++i) {
    const std::string path = words[0] + "/a file with a name of some length, number " + std::to_string(i);
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return 4;
    (void)!::write(fd, "x", 1);
    ::close(fd);
  }
  return 0;
}

/// shm NAME MIB: leaves a file in memory behind.
int shm(const Words& words) {
  const auto size = static_cast<std::size_t>(number(words, 1, 1)) * kMiB;
  const int fd = ::open(("/dev/shm/" + words.at(0)).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(size)) != 0) return 4;
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return 5;
  touch(static_cast<char*>(memory), size);
  return 0;
}

/// thrash FILE PROCESSES: reads a mapped file here and there, for ever. It is mapped like a program's text, which the
/// kernel takes for part of the working set at once: of other pages it would not count the waiting as a stall.
int thrash(const Words& words) {
  const int fd = ::open(words.at(0).c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info {};
  if (fd < 0 || ::fstat(fd, &info) != 0) return 4;
  const auto size = static_cast<std::size_t>(info.st_size);
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return 5;
  ::madvise(memory, size, MADV_RANDOM);
  const auto read_here_and_there = [&](std::uint64_t seed) {
    const volatile char* bytes = static_cast<const char*>(memory);
    for (;;) {
      seed = seed * 6364136223846793005U + 1442695040888963407U;
      (void)bytes[(seed >> 20U) % (size / kPage) * kPage];
    }
  };
  for (long i = 1; i < number(words, 1, 1); ++i) {
    fork_off([&] { read_here_and_there(static_cast<std::uint64_t>(i) * 977); });
  }
  read_here_and_there(1);
  return 0;
}

// ---- signals ----

/// ignore-term READY
int ignore_term(const Words& words) {
  ::signal(SIGTERM, SIG_IGN);
  leave_word(words.at(0), "ready");
  stay();
}

/// handle-term READY MARKER WORK-MS
int handle(const Words& words) {
  handle_term(words.at(1), number(words, 2, 200));
  leave_word(words.at(0), "ready");
  stay();
}

/// stopped READY MARKER: handles SIGTERM, but has stopped itself.
int stopped(const Words& words) {
  handle_term(words.at(1), 0);
  leave_word(words.at(0), "ready");
  ::raise(SIGSTOP);
  stay();
}

/// witness FILE: writes a line about each signal that it gets.
std::string g_letters;
int witness(const Words& words) {
  g_letters = words.at(0);
  struct sigaction action {};
  action.sa_handler = [](int signal) {
    char line[] = "signal 00\n";
    line[7] = static_cast<char>('0' + signal / 10);
    line[8] = static_cast<char>('0' + signal % 10);
    add_line(g_letters.c_str(), line);
  };
  for (const int signal : {SIGTERM, SIGCONT, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT}) {
    ::sigaction(signal, &action, nullptr);
  }
  add_line(g_letters.c_str(), "");
  stay();
}

/// raise SIGNAL: dies of it.
int raise_signal(const Words& words) {
  ::raise(static_cast<int>(number(words, 0, SIGTERM)));
  stay();
}

// ---- trees ----

/// children COUNT READY: each has a child of its own; every second one leads a session.
int children(const Words& words) {
  const long count = number(words, 0, 2);
  int ready[2];
  if (::pipe(ready) != 0) return 4;
  for (long i = 0; i < count; ++i) {
    fork_off([&, i] {
      if (i % 2 == 1) ::setsid();
      fork_off([&] {
        (void)!::write(ready[1], "x", 1);
        stay();
      });
      (void)!::write(ready[1], "x", 1);
      stay();
    });
  }
  for (long i = 0; i < 2 * count; ++i) {
    char one = 0;
    if (::read(ready[0], &one, 1) != 1) return 5;
  }
  leave_word(words.at(1), "ready");
  stay();
}

/// leave COUNT: starts children and ends.
int leave_children(const Words& words) {
  for (long i = 0; i < number(words, 0, 2); ++i) fork_off([] { stay(); });
  return 0;
}

/// fork-bomb
int fork_bomb(const Words&) {
  for (;;) {
    if (::fork() < 0) pause_ms(5);
  }
}

/// daemonize PIDFILE: double fork and setsid; the grandchild stays, beside us.
int daemonize(const Words& words) {
  const pid_t child = fork_off([&] {
    ::setsid();
    fork_off([&] {
      while (::getppid() != 1) pause_ms(5);
      leave_word(words.at(0), std::to_string(::getpid()));
      stay();
    });
  });
  ::waitpid(child, nullptr, 0);
  stay();
}

/// parent PIDFILE WORDS…: starts the workload WORDS as its child, and stays.
int run(const Words& words);
int parent(const Words& words) {
  const pid_t child = fork_off([&] { ::_exit(run(Words(words.begin() + 1, words.end()))); });
  leave_word(words.at(0), std::to_string(child));
  stay();
}

/// forking-tree COUNT READY TOKEN: COUNT processes that fork for ever; what they fork lives a moment. They are known by
/// TOKEN in their command line.
int forking_tree(const Words& words) {
  int ready[2];
  if (::pipe(ready) != 0) return 4;
  const long count = number(words, 0, 20);
  for (long i = 0; i < count - 1; ++i) {
    fork_off([&, i] {
      if (i % 3 == 1) ::setsid();
      bool told = false;
      for (;;) {
        fork_off([] { pause_ms(20); });
        if (!told) (void)!::write(ready[1], "x", 1);
        told = true;
        while (::waitpid(-1, nullptr, WNOHANG) > 0) {
        }
        pause_ms(30 + i);
      }
    });
  }
  for (long i = 0; i < count - 1; ++i) {
    char one = 0;
    if (::read(ready[0], &one, 1) != 1) return 5;
  }
  leave_word(words.at(1), "ready");
  stay();
}

// ---- ends ----

int exit_with(const Words& words) { return static_cast<int>(number(words, 0, 0)); }

/// live MS [STATUS]
int live(const Words& words) {
  pause_ms(number(words, 0, 5));
  return static_cast<int>(number(words, 1, 0));
}

int stay_for_ever(const Words&) { stay(); }

/// burn: uses CPU time for ever.
int burn(const Words&) {
  volatile std::uint64_t turns = 0;
  for (;;) turns = turns + 1;
}

/// gate PROGRAM…: waits for a byte from descriptor 3, then becomes PROGRAM.
int gate(const Words& words) {
  char go = 0;
  if (::read(3, &go, 1) != 1) return 125;
  ::close(3);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  return 127;
}

/// hang THREAD MARK: another program's thread stands still until one of the two is killed. MARK: it does so now.
int hang(const Words& words) {
  const auto thread = static_cast<pid_t>(number(words, 0, 0));
  if (::ptrace(PTRACE_SEIZE, thread, 0, 0) != 0 || ::ptrace(PTRACE_INTERRUPT, thread, 0, 0) != 0 ||
      ::waitpid(thread, nullptr, __WALL) != thread) {
    std::perror("workload: hang");
    return 1;
  }
  leave_word(words.at(1), "hangs");
  while (::waitpid(thread, nullptr, __WALL) == thread) {  // A killed one is not gone before its tracer has seen it.
  }
  return 0;
}

int run(const Words& words) {
  static const std::map<std::string, int (*)(const Words&)> kBehaviours{
      {"leak", leak},
      {"leak-on-usr1", leak_on_usr1},
      {"hold", hold},
      {"share", share},
      {"hold-on-usr1", hold_on_usr1},
      {"read", read_file},
      {"write", write_file},
      {"many-files", many_files},
      {"shm", shm},
      {"thrash", thrash},
      {"ignore-term", ignore_term},
      {"handle-term", handle},
      {"stopped", stopped},
      {"witness", witness},
      {"raise", raise_signal},
      {"children", children},
      {"leave", leave_children},
      {"fork-bomb", fork_bomb},
      {"daemonize", daemonize},
      {"parent", parent},
      {"forking-tree", forking_tree},
      {"exit", exit_with},
      {"live", live},
      {"stay", stay_for_ever},
      {"hang", hang},
      {"burn", burn},
      {"gate", gate},
  };
  const auto behaviour = words.empty() ? kBehaviours.end() : kBehaviours.find(words[0]);
  if (behaviour == kBehaviours.end()) {
    std::fprintf(stderr, "workload: no such behaviour\n");
    return 2;
  }
  return behaviour->second(Words(words.begin() + 1, words.end()));
}

}  // namespace

int main(int argc, char** argv) { return run(Words(argv + 1, argv + argc)); }
