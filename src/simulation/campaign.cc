// SPDX-License-Identifier: Apache-2.0
#include "simulation/campaign.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

namespace aw::simulation {

Outcome run(const Campaign& campaign) {
  Outcome outcome;
  std::mutex mutex;
  std::atomic<std::uint64_t> next = 0;
  const auto work = [&] {
    Outcome own;
    for (std::uint64_t i = next++; i < campaign.histories; i = next++) {
      Options options;
      options.steps = campaign.steps;
      History history(campaign.first_seed + i, std::move(options));
      if (auto violation = history.play()) own.violations.push_back(std::move(*violation));
      own.tally.add(history.tally());
    }
    const std::lock_guard lock(mutex);
    outcome.tally.add(own.tally);
    std::move(own.violations.begin(), own.violations.end(), std::back_inserter(outcome.violations));
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < campaign.jobs; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  std::sort(outcome.violations.begin(), outcome.violations.end(),
            [](const Violation& a, const Violation& b) { return a.seed < b.seed; });
  return outcome;
}

std::string describe(const Violation& violation) {
  return "seed " + std::to_string(violation.seed) + ", step " + std::to_string(violation.step) + ": " + violation.what +
         "\n  to see it: analysis-watchdog-simulation --verbose --seed " + std::to_string(violation.seed);
}

std::string summary(const Tally& tally) {
  std::ostringstream text;
  text << tally.histories << " histories, " << tally.steps << " steps: " << tally.registered << " registered, "
       << tally.refused << " refused, " << tally.unregistered << " unregistered, " << tally.adopted << " adopted, "
       << tally.escalated << " escalated, " << tally.orphans << " orphans; ended:";
  for (std::size_t i = 0; i < tally.ends.size(); ++i) text << " " << kReasonWords.at(i) << " " << tally.ends.at(i);
  text << "; " << tally.crash_count() << " crashes, " << tally.reboots << " reboots\n  crashed before:";
  for (const auto& [call, count] : tally.crashes) text << " " << (call.empty() ? "nothing" : call) << " " << count;
  return text.str();
}

}  // namespace aw::simulation
