// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/version.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "cli/top.h"

namespace {

using namespace aw;

constexpr char kExamples[] =
    "Examples:\n"
    "  analysisctl                                what runs, and how near its limits it is\n"
    "  analysisctl show nightly\n"
    "  analysisctl events --reason=memory --since=-1d\n"
    "  analysisctl explain nightly; analysisctl advise 'train-*'\n"
    "  analysisctl register train-42 4711 --memory=8G --wall-clock=2h\n"
    "  analysisctl set train-42 MemoryLimit=12G; analysisctl extend train-42 1h\n\n"
    "Exit status: 0; 1 on an error; 2 on wrong usage. See analysisctl(1).";

struct Arguments {
  cli::Common common;
  std::string json, id, pid, span;
  bool user = false, system = false, no_pager = false, no_legend = false;
  cli::LimitOptions limits;
  cli::EventOptions events;
  std::vector<std::string> assignments;
  cli::RecordPlace place;
  std::string run, label;
  cli::RunPattern pattern;
  cli::MigrateOptions migrate;
  cli::PruneOptions prune;
  cli::TopOptions top;
};

/// The options that every command takes.
void add_common(CLI::App& app, Arguments& a) {
  app.add_option("--json", a.json, "As JSON: short (the default) or pretty")->type_name("short|pretty")->expected(0, 1);
  app.add_flag("--no-pager", a.no_pager, "Don't show long output through a pager");
  app.add_flag("--no-legend", a.no_legend, "No header and footer");
  app.add_flag("--user", a.user, "Talk to the calling user's watchdog");
  app.add_flag("--system", a.system, "Talk to the system's watchdog (the default)");
}

CLI::App* add_command(CLI::App& app, Arguments& a, const char* name, const char* help, bool takes_id) {
  CLI::App* command = app.add_subcommand(name, help);
  add_common(*command, a);
  if (takes_id) command->add_option("ID", a.id, "The analysis")->required();
  return command;
}

void add_config(CLI::App& command, std::string& config) {
  command.add_option("--config", config, "Where the stores are: read FILE instead of the watchdog's configuration")
      ->type_name("FILE");
}

/// The options of a command that reads the record.
void add_place(CLI::App& command, Arguments& a) {
  auto* host = command.add_option("--host", a.place.host, "Of another host, from PostgreSQL")->type_name("NAME");
  command.add_flag("--all-hosts", a.place.all_hosts, "Of all hosts, from PostgreSQL")->excludes(host);
  add_config(command, a.place.config);
}

bool is_json_value(const std::string& word) { return word == "short" || word == "pretty"; }

/// CLI11 would take what follows a bare --json for its value.
std::vector<std::string> to_words(int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = argc - 1; i > 0; --i) {
    const std::string word = argv[i];
    words.push_back(word == "--json" && !(i + 1 < argc && is_json_value(argv[i + 1])) ? "--json=short" : word);
  }
  return words;
}

int usage_error(const std::string& text) {
  std::fprintf(stderr, "analysisctl: %s\n", text.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app{"Shows and manages the analyses under the watchdog's eyes.", "analysisctl"};
  app.footer(kExamples);
  app.require_subcommand(0, 1);
  app.set_version_flag("--version", std::string("analysisctl ") + kVersion);
  add_common(app, a);
  add_command(app, a, "list", "What runs (the default)", false);
  add_command(app, a, "show", "One analysis, with its last events", true);
  add_command(app, a, "status", "The watchdog as a whole", false);
  CLI::App* top = add_command(app, a, "top", "What runs, as it happens; q to quit, h for the other keys", false);
  top->add_option("--interval,-d", a.top.interval, "Look at least so often (1s)")->type_name("TIME");
  top->add_option("--sort,-o", a.top.sort, "By memory (the default), cpu, left, processes or id")
      ->type_name("COLUMN")
      ->check(CLI::IsMember({"memory", "cpu", "left", "processes", "id"}));
  top->add_flag("--batch,-b", a.top.batch, "Plain text, look after look, also on a terminal");
  auto* iterations = top->add_option("--iterations,-n", a.top.iterations, "End after so many looks")
                         ->type_name("N")
                         ->check(CLI::Range(1U, UINT32_MAX));
  top->add_flag("--once", a.top.once, "Plain text, once")->excludes(iterations);
  CLI::App* events = add_command(app, a, "events", "What has happened, oldest first", false);
  events->add_option("--since", a.events.since, "From this moment on, as journalctl takes it")->type_name("TIME");
  auto* until = events->add_option("--until", a.events.until, "Up to this moment")->type_name("TIME");
  events->add_option("--id", a.events.id, "Of this analysis")->type_name("ID");
  events->add_option("--reason", a.events.reason, "With this reason: memory, wall-clock, oom, ...")
      ->type_name("REASON");
  events->add_option("--kind", a.events.kind, "Of this kind: registered, ending, ended, ...")->type_name("KIND");
  events->add_option("--limit", a.events.limit, "At most the last N (100)")->type_name("N");
  events->add_flag("--follow,-f", a.events.follow, "Stay, and print what comes")->excludes(until);
  add_place(*events, a);
  CLI::App* explain = add_command(app, a, "explain", "The story of a run: what ended it, and what to change", true);
  explain->add_option("--run", a.run, "Of this run instead of the last")->type_name("RUN");
  add_place(*explain, a);
  CLI::App* advise =
      add_command(app, a, "advise", "What runs have needed, and the limits that would let them live", false);
  advise->add_option("ID-PATTERN", a.pattern.id, "Of analyses like this: nightly-*");
  advise->add_option("--label", a.label, "Of runs with this label")->type_name("KEY=VALUE");
  add_place(*advise, a);
  CLI::App* reg = add_command(app, a, "register", "Watch a process that runs, with its whole tree", true);
  reg->add_option("PID", a.pid, "Its leader")->required();
  cli::add_limit_options(*reg, a.limits);
  add_command(app, a, "unregister", "Lift every limit and let the tree live", true);
  add_command(app, a, "kill", "End it: SIGTERM, its grace, SIGKILL", true);
  CLI::App* extend = add_command(app, a, "extend", "Give it more time", true);
  extend->add_option("TIME", a.span, "How much more: 30min, 2h")->required();
  CLI::App* set = add_command(app, a, "set", "Change its limits while it runs", true);
  set->add_option("OPTION=VALUE", a.assignments, "MemoryLimit=4G, WallClockLimit=2h, Grace=30s, ...")->required();
  CLI::App* migrate = add_command(app, a, "migrate", "Bring the tables of the stores up to date", false);
  migrate->add_option("--postgres", a.migrate.postgres, "The shared store, instead of PostgresUri=")->type_name("URI");
  add_config(*migrate, a.migrate.config);
  CLI::App* prune = add_command(app, a, "prune", "Delete old events from the ledger of this host", false);
  prune->add_option("--older-than", a.prune.older_than, "90d, or a moment; Retention= unless given")->type_name("TIME");
  add_config(*prune, a.prune.config);
  add_command(app, a, "doctor", "Can this host serve, and does the watchdog?", false);

  try {
    app.parse(to_words(argc, argv));
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (a.user && a.system) return usage_error("--user and --system exclude each other");
  if (!a.json.empty() && !is_json_value(a.json)) {
    return usage_error("--json: \"" + a.json + "\" is neither \"short\" nor \"pretty\"");
  }
  a.common.json = a.json.empty()       ? cli::JsonStyle::kOff
                  : a.json == "pretty" ? cli::JsonStyle::kPretty
                                       : cli::JsonStyle::kShort;
  a.common.pager = !a.no_pager;
  a.common.legend = !a.no_legend;
  a.common.bus = a.user ? bus::BusKind::kUser : bus::BusKind::kSystem;

  const auto is = [&](const char* name) { return app.got_subcommand(name); };
  if (is("show")) return cli::show_command(a.common, a.id);
  if (is("status")) return cli::status_command(a.common);
  if (is("top")) return cli::top_command(a.common, a.top);
  if (is("events")) return cli::events_command(a.common, a.events, a.place);
  if (is("explain")) return cli::explain_command(a.common, a.id, a.run, a.place);
  if (is("advise")) {
    if (a.pattern.id.empty() && a.label.empty())
      return usage_error("advise: ID-PATTERN or --label=KEY=VALUE is wanted");
    if (const auto at = a.label.find('='); at != std::string::npos && at > 0) {
      a.pattern.label = {a.label.substr(0, at), a.label.substr(at + 1)};
    } else if (!a.label.empty()) {
      return usage_error("--label: \"" + cli::printable(a.label) + "\" is not KEY=VALUE");
    }
    return cli::advise_command(a.common, a.pattern, a.place);
  }
  if (is("migrate")) return cli::migrate_command(a.common, a.migrate);
  if (is("prune")) return cli::prune_command(a.common, a.prune);
  if (is("register")) return cli::register_command(a.common, a.id, a.pid, a.limits);
  if (is("unregister")) return cli::simple_command(a.common, "UnregisterAnalysis", a.id);
  if (is("kill")) return cli::simple_command(a.common, "KillAnalysis", a.id);
  if (is("extend")) return cli::extend_command(a.common, a.id, a.span);
  if (is("set")) return cli::set_command(a.common, a.id, a.assignments);
  if (is("doctor")) return cli::doctor_command(a.common);
  return cli::list_command(a.common);
}
