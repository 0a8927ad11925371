// SPDX-License-Identifier: Apache-2.0
//
// What looking at a tree costs between the decision to end it and its SIGTERM: less than 5 ms however large it is.
#include <benchmark/benchmark.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "process/proc_fs.h"

namespace aw::process {
namespace {

void survey(benchmark::State& state) {
  std::vector<pid_t> pids;
  for (auto i = state.range(0); i > 0; --i) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) ::pause();
    }
    if (pid > 0) pids.push_back(pid);
  }
  auto loop = loop::Loop::create().value();
  const ProcFs processes(loop);
  std::size_t looked_at = 0;
  std::size_t with_cmdline = 0;
  Span longest{0};
  for (auto _ : state) {
    const auto began = std::chrono::steady_clock::now();
    const auto seen = processes.survey(pids);
    longest = std::max(longest, std::chrono::duration_cast<Span>(std::chrono::steady_clock::now() - began));
    looked_at = seen.looked_at;
    with_cmdline = 0;
    for (const auto& process : seen.largest) with_cmdline += process.cmdline.empty() ? 0 : 1;
  }
  state.counters["looked_at"] = static_cast<double>(looked_at);
  state.counters["with_cmdline"] = static_cast<double>(with_cmdline);
  state.counters["longest_usec"] = static_cast<double>(longest.count());
  for (const pid_t pid : pids) ::kill(pid, SIGKILL);
  for (const pid_t pid : pids) ::waitpid(pid, nullptr, 0);
}
BENCHMARK(survey)->Arg(2)->Arg(20)->Arg(200)->Arg(2000)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace aw::process

BENCHMARK_MAIN();
