// SPDX-License-Identifier: Apache-2.0
#include "support/ledger.h"

#include <gtest/gtest.h>

#include <sstream>

#include "support/process.h"

namespace aw::stories {
namespace {

/// Runs lines of Python with `db` open. `argument` is sys.argv[1], so that no quoting can spoil it.
std::string told_by_sqlite(const std::string& lines, const std::string& argument) {
  const std::string program =
      "import json, sqlite3, sys\n"
      "db = sqlite3.connect('file:" +
      std::string(kLedgerFile) +
      "?mode=ro', uri=True, timeout=60)\n"
      "db.row_factory = sqlite3.Row\n" +
      lines;
  const auto result = run_command({"python3", "-c", program, argument});
  EXPECT_EQ(result.status, 0) << "the ledger can't be read: " << result.err;
  return result.out;
}

}  // namespace

std::vector<nlohmann::json> read_ledger(const std::string& where) {
  std::vector<nlohmann::json> rows;
  std::istringstream lines(
      told_by_sqlite("for row in db.execute('SELECT * FROM watchdog_events WHERE ' + sys.argv[1] + ' ORDER BY seq'):\n"
                     "  print(json.dumps(dict(row)))\n",
                     where));
  for (std::string line; std::getline(lines, line);) rows.push_back(nlohmann::json::parse(line));
  return rows;
}

std::string ledger_integrity() {
  std::string told = told_by_sqlite("print('\\n'.join(row[0] for row in db.execute('PRAGMA integrity_check')))\n", "");
  while (told.ends_with('\n')) told.pop_back();
  return told;
}

}  // namespace aw::stories
