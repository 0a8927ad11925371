// SPDX-License-Identifier: Apache-2.0
//
// Prints what /metrics answers for a small simulated world that has seen a bit of everything, as the daemon's own code
// collects it and the gateway's writes it. For ./check, which shows it to Prometheus' tools and to the page
// docs/metrics.md.
//   print_metrics openmetrics|text [analyses] [away]
#include <cstdio>
#include <string>

#include "api/encode.h"
#include "api/metrics.h"
#include "testing/run_fixture.h"
#include "web/open_metrics.h"

namespace aw {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::mib;
using testing::World;

class AWorldThatHasSeenAll : public testing::AWorld {
 public:
  void TestBody() override {}

  record::Metrics collect() {
    world.signalling_takes = std::chrono::milliseconds{7};
    const auto run = [&](const std::string& id) { return world.register_run(id, world.spawn(world.user_shell)); };
    run("one that has too much");
    world.use_memory("one that has too much", mib(3000));
    run("one that takes too long");
    world.advance(minutes{31});
    run("one that is asked to end");
    (void)world.supervisor.end(World::id("one that is asked to end"), world.caller(), world.now());
    world.advance(seconds{20});
    run("one that lives");
    run("an \"id\" \\ of <html>\u2028& more");

    api::Vitals vitals;
    vitals.unshipped = 3;
    vitals.unshipped_by_shipper = 2;
    vitals.usage = read_own_usage();
    vitals.started = read_own_start();
    return api::collect_metrics(world.supervisor, {{"InvalidId", 2}, {"AccessDenied", 1}}, vitals, 2, 0, "0.1.0");
  }

  std::vector<bus::Dict> analyses() const {
    std::vector<bus::Dict> runs;
    for (const auto& [key, run] : world.supervisor.runs()) {
      auto usage = world.supervisor.read_usage(*run);
      usage.counters.cpu = seconds{2};  // The world has no CPUs.
      runs.push_back(api::to_dict(*run, usage));
    }
    return runs;
  }
};

}  // namespace
}  // namespace aw

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto has = [&](const char* word) { return std::find(words.begin(), words.end(), word) != words.end(); };
  aw::AWorldThatHasSeenAll world;
  aw::web::MetricsPage page;
  auto metrics = world.collect();
  if (!has("away")) page.daemon = std::move(metrics);
  page.gateway = aw::web::gateway_metrics({{{200, 7}, {404, 1}}, 3, 2});
  if (has("analyses")) page.analyses = world.analyses();
  const auto format =
      has("openmetrics") ? aw::web::MetricsFormat::kOpenMetrics : aw::web::MetricsFormat::kPrometheusText;
  std::fputs(aw::web::to_text(page, format).c_str(), stdout);
  return 0;
}
