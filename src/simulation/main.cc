// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "simulation/campaign.h"
#include "simulation/churn.h"

namespace {

using namespace aw;
using namespace aw::simulation;

int replay(std::uint64_t seed, unsigned steps, bool verbose) {
  Options options;
  options.steps = steps;
  if (verbose) options.tell = [](const std::string& line) { std::puts(line.c_str()); };
  History history(seed, std::move(options));
  const auto violation = history.play();
  if (violation) {
    std::puts(describe(*violation).c_str());
    return EXIT_FAILURE;
  }
  std::puts(summary(history.tally()).c_str());
  return EXIT_SUCCESS;
}

int play_many(const Campaign& campaign) {
  const Outcome outcome = run(campaign);
  for (const Violation& violation : outcome.violations) std::puts(describe(violation).c_str());
  std::puts(summary(outcome.tally).c_str());
  return outcome.violations.empty() ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  Campaign campaign;
  std::uint64_t seed = 0;
  bool verbose = false;
  unsigned hours = 0;
  CLI::App app{"Plays random histories of a machine against the watchdog's heart.", "analysis-watchdog-simulation"};
  auto* one = app.add_option("--seed", seed, "Play the history of this seed")->type_name("N");
  auto* told = app.add_flag("--verbose", verbose, "… and print each step");
  auto* many = app.add_option("--histories", campaign.histories, "Play so many")->type_name("N");
  auto* first = app.add_option("--first-seed", campaign.first_seed, "… from this seed on (1)")->type_name("S");
  auto* jobs =
      app.add_option("--jobs", campaign.jobs, "… in so many threads (1)")->type_name("J")->check(CLI::PositiveNumber);
  auto* churn =
      app.add_option("--churn", hours, "Let runs come and go for so many simulated hours, and look at the heap")
          ->type_name("HOURS")
          ->check(CLI::Range(kLeastChurn, 10'000U).description("24 or more"));
  app.add_option("--steps", campaign.steps, "Steps of a history (60)")->type_name("N");
  told->needs(one);
  first->needs(many);
  jobs->needs(many);
  one->excludes(many, churn);
  many->excludes(churn);
  try {
    app.parse(argc, argv);
    if (!*one && !*many && !*churn) throw CLI::RequiredError("--seed, --histories or --churn");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? EXIT_SUCCESS : 2;
  }
  if (*one) return replay(seed, campaign.steps, verbose);
  return *many ? play_many(campaign) : simulate_churn(hours);
}
