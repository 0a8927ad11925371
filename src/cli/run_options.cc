// SPDX-License-Identifier: Apache-2.0
#include "cli/run_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/analysis_id.h"
#include "base/version.h"
#include "cli/limit_options.h"
#include "cli/terminal.h"

namespace aw::cli {
namespace {

constexpr char kExamples[] =
    "Examples:\n"
    "  analysis-run --memory=4G --wall-clock=2h -- ./pipeline.sh input.csv\n"
    "  analysis-run --id=nightly --label=team=astro --report make -j8\n"
    "  analysis-run --detach --id=train-42 -- python3 train.py\n\n"
    "Exit status: COMMAND's own; 128+N if it died of signal N; 124 if the wall clock ended it;\n"
    "125 if analysis-run itself failed; 126 and 127 as a shell's. See analysis-run(1).";

/// As typed.
struct Typed {
  LaunchOptions launch;
  LimitOptions limits;
  std::string json;
  bool user = false;
  bool system = false;
};

void add_options(CLI::App& app, Typed& typed) {
  app.footer(kExamples);
  app.add_option("--id", typed.launch.id, "Name of the analysis (COMMAND's name and a short suffix)")->type_name("ID");
  add_limit_options(app, typed.limits);
  app.add_option("--report", typed.launch.report_file, "Final accounting, on stderr or into FILE")
      ->type_name("[=FILE]")
      ->expected(0, 1);
  app.add_option("--json", typed.json, "The report as JSON: short (one line) or pretty")
      ->type_name("[=short|pretty]")
      ->expected(0, 1);
  app.add_flag("--detach", typed.launch.detach, "Print the id and return; the analysis has no owner");
  app.add_flag("--user", typed.user, "Talk to the calling user's watchdog");
  app.add_flag("--system", typed.system, "Talk to the system's watchdog (the default)");
  app.add_flag("-q,--quiet", typed.launch.quiet, "Say nothing about why it was ended");
  app.set_version_flag("--version", std::string("analysis-run ") + kVersion);
}

/// Parts our own words from the command's. CLI11 would take the word after a bare --report or --json for its value;
/// such an option takes one behind "=" or none.
std::vector<std::string> take_own(const CLI::App& app, int argc, const char* const* argv, LaunchOptions& launch) {
  std::vector<std::string> own;
  int at = 1;
  for (; at < argc; ++at) {
    const std::string word = argv[at];
    if (word == "--") {
      ++at;
      break;
    }
    if (!word.starts_with('-') || word == "-") break;
    if (word == "--report" || word == "--json") {
      own.push_back(word + "=");
      continue;
    }
    const auto* option = word.find('=') == std::string::npos ? app.get_option_no_throw(word) : nullptr;
    const bool takes_next = option != nullptr && option->get_items_expected_min() > 0 && at + 1 < argc;
    own.push_back(takes_next && word.starts_with("--") ? word + "=" + argv[++at] : word);
  }
  launch.command.assign(argv + at, argv + argc);
  return own;
}

/// What the options say together; the message says what is wrong.
Result<void> check(const CLI::App& app, Typed& typed) {
  LaunchOptions& launch = typed.launch;
  if (launch.command.empty() || launch.command.front().empty()) return invalid("no COMMAND given");
  if (typed.user && typed.system) return invalid("--user and --system exclude each other");
  launch.bus = typed.user ? bus::BusKind::kUser : bus::BusKind::kSystem;
  launch.report = app.count("--report") > 0;
  if (launch.report && launch.detach) return invalid("--detach does not wait for the end that --report tells of");
  if (app.count("--json") > 0) {
    if (!typed.json.empty() && typed.json != "short" && typed.json != "pretty") {
      return invalid("--json: \"" + printable(typed.json) + "\" is neither \"short\" nor \"pretty\"");
    }
    launch.json = typed.json == "pretty" ? JsonStyle::kPretty : JsonStyle::kShort;
  }
  auto limits = to_bus_options(typed.limits);
  if (!limits) return std::move(limits).error();
  launch.limits = std::move(*limits);
  if (app.count("--id") == 0) launch.id = make_id(launch.command.front());
  if (auto id = AnalysisId::parse(launch.id); !id) return std::move(id).error().within("--id");
  return {};
}

}  // namespace

std::variant<LaunchOptions, int> parse_run_options(int argc, const char* const* argv, std::ostream& out,
                                                   std::ostream& err) {
  Typed typed;
  CLI::App app{"Starts COMMAND as a watched analysis, from its first instruction, and waits for it.",
               "analysis-run [OPTIONS] [--] COMMAND..."};
  add_options(app, typed);
  const auto fail = [&err](const std::string& text) {
    err << "analysis-run: " << text << "; see analysis-run --help\n";
    return kExitOwnFailure;
  };
  std::vector<std::string> own = take_own(app, argc, argv, typed.launch);
  std::reverse(own.begin(), own.end());  // As CLI11 wants them.
  try {
    app.parse(std::move(own));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error, out, err);
    return fail(printable(error.what()));
  }
  if (auto checked = check(app, typed); !checked) return fail(checked.error().message);
  return std::move(typed.launch);
}

}  // namespace aw::cli
