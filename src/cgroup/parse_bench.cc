// SPDX-License-Identifier: Apache-2.0
//
// One look at a file of a run: pread and parse. The files are real ones in a temporary directory, so the kernel's
// work for cgroupfs is not in it. A look that allocates in the steady state fails.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "cgroup/parse.h"

namespace {

std::size_t allocations = 0;

}  // namespace

// Not inline, or gcc 12 sees free() at the end of a new expression and takes it for a mistake.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace aw::cgroup {
namespace {

/// A file that is held open, as those of a run are, and read from its beginning at each look.
class HeldFile {
 public:
  explicit HeldFile(const std::string& text) {
    std::string path = std::filesystem::temp_directory_path() / "parse_bench.XXXXXX";
    fd_.reset(mkstemp(path.data()));
    unlink(path.c_str());
    if (write(fd_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
  }

  std::string_view read() {
    const ssize_t size = pread(fd_.get(), buffer_.data(), buffer_.size(), 0);
    return {buffer_.data(), size < 0 ? 0 : static_cast<std::size_t>(size)};
  }

 private:
  UniqueFd fd_;
  std::array<char, 65536> buffer_;
};

template <class Look>
void measure(benchmark::State& state, Look look) {
  look();  // What grows at the first look stays as large.
  const std::size_t before = allocations;
  for (auto _ : state) look();
  const std::size_t made = allocations - before;
  state.counters["allocations"] = static_cast<double>(made);
  if (made != 0) state.SkipWithError("a look allocates");
}

void memory_events(benchmark::State& state) {
  HeldFile file("low 0\nhigh 1156\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n");
  measure(state, [&] { benchmark::DoNotOptimize(parse_memory_events(file.read()).value()); });
}

void memory_stat(benchmark::State& state) {
  std::ifstream recorded(AW_SOURCE_DIR "/src/supervise/recorded/6.12-anon-and-cache.stat");
  HeldFile file(std::string(std::istreambuf_iterator<char>(recorded), {}));
  measure(state, [&] { benchmark::DoNotOptimize(parse_memory_stat(file.read()).value()); });
}

void cgroup_procs(benchmark::State& state) {
  std::string text;
  for (std::int64_t i = 0; i < state.range(0); ++i) text += std::to_string(100'000 + i) + "\n";
  HeldFile file(text);
  std::vector<pid_t> pids;
  measure(state, [&] {
    pids.clear();
    if (!parse_procs(file.read(), pids)) std::abort();
    benchmark::DoNotOptimize(pids.data());
  });
}

BENCHMARK(memory_events)->Name("read and parse memory.events");
BENCHMARK(memory_stat)->Name("read and parse memory.stat");
BENCHMARK(cgroup_procs)->Name("read and parse cgroup.procs")->Arg(1)->Arg(20)->Arg(2000);

}  // namespace
}  // namespace aw::cgroup

BENCHMARK_MAIN();
