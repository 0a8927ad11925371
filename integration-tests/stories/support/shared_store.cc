// SPDX-License-Identifier: Apache-2.0
#include "support/shared_store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "support/story.h"

namespace aw::stories {
namespace {

constexpr char kDropIn[] = "/run/analysis-watchdog/analysis-watchdog.conf.d/60-story.conf";
constexpr char kRoles[] = "/usr/share/analysis-watchdog/migrations/postgresql/roles.sql";
constexpr char kShipped[] = "/var/lib/analysis-watchdog-shipper/shipped";

}  // namespace

std::string told(const Words& words, const std::string& input) {
  const auto result = run_command(words, input);
  EXPECT_EQ(result.status, 0) << words.at(0) << ": " << result.err;
  return result.out;
}

void SharedStore::start_server() {
  ASSERT_EQ(run_command({"systemctl", "start", "postgresql"}).status, 0);
  for (const char* role : {"root", "analysis-watchdog-shipper"}) {
    (void)run_as("postgres", {"createuser", role});  // A story file that is run twice has them.
  }
}

void SharedStore::stop_server() { (void)run_command({"systemctl", "stop", "postgresql"}); }

SharedStore::SharedStore(std::string database) : database_(std::move(database)) {
  (void)run_as("postgres", {"dropdb", "--if-exists", "--force", database_});
  EXPECT_EQ(run_as("postgres", {"createdb", "--owner=root", database_}).status, 0);
  std::filesystem::create_directories(std::filesystem::path(kDropIn).parent_path());
  write_file(kDropIn, "[PostgreSQL]\nPostgresUri=postgresql:///" + database_ + "?host=/run/postgresql\n");
  EXPECT_TRUE(systemctl({"reload", kDaemonUnit}));
}

SharedStore::~SharedStore() {
  EXPECT_TRUE(systemctl({"stop", kShipperUnit}));
  (void)run_command({"systemctl", "reset-failed", kShipperUnit});
  unconfigure();
  EXPECT_TRUE(systemctl({"reload", kDaemonUnit}));
  // Another database is another copy, to which nothing has been brought.
  std::filesystem::remove(kShipped);
}

void SharedStore::set_up() const {
  told({"analysisctl", "migrate"});
  told({"psql", "-q", "-d", database_, "-v", "writer=analysis-watchdog-shipper", "-v", "reader=root", "-v",
        "schema=public", "-f", kRoles});
  EXPECT_TRUE(systemctl({"start", kShipperUnit}));
}

void SharedStore::unconfigure() { std::filesystem::remove(kDropIn); }

std::vector<std::string> SharedStore::sql(const std::string& statement) const {
  std::vector<std::string> rows;
  std::istringstream lines(told({"psql", "-q", "-tA", "-d", database_}, statement));
  for (std::string row; std::getline(lines, row);) rows.push_back(row);
  return rows;
}

std::string SharedStore::try_sql(const std::string& statement) const {
  return run_command({"psql", "-q", "-tA", "-d", database_}, statement).out;
}

void SharedStore::sql_as_admin(const std::string& statement) {
  const auto result = run_as("postgres", {"psql", "-q", "-c", statement});
  EXPECT_EQ(result.status, 0) << result.err;
}

void SharedStore::cut_off() {
  sql_as_admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'analysis-watchdog-shipper'");
}

std::string SharedStore::status_text() {
  return run_command({"systemctl", "show", "--property=StatusText", "--value", kShipperUnit}).out;
}

}  // namespace aw::stories
