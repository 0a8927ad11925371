// SPDX-License-Identifier: Apache-2.0
//
// Linked by tests only: an empty database on the private server for each test.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "postgres/migrate.h"
#include "postgres/session.h"
#include "testing/patience.h"
#include "testing/private_postgres.h"

namespace aw::postgres {

inline const std::filesystem::path kMigrations = std::filesystem::path(AW_SOURCE_DIR) / "migrations" / "postgresql";

class ADatabase : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(server_.problem(), "");
    static int number = 0;
    database_ = "test_" + std::to_string(++number);
    pqxx::connection admin(server_.uri());
    pqxx::nontransaction(admin).exec("CREATE DATABASE " + database_);
    target_.uri = server_.uri(database_);
    // However busy the machine is: whose test is about a time-out sets a short one.
    target_.connect_timeout = target_.statement_timeout = target_.lock_timeout = aw::testing::kPatience;
  }

  /// A statement by somebody else: its rows, each "a|b|c", NULL as "-".
  std::vector<std::string> sql(const std::string& statement) {
    if (!other_) other_ = std::make_unique<pqxx::connection>(target_.uri);
    pqxx::work work(*other_);
    const pqxx::result result = work.exec(statement);
    work.commit();
    std::vector<std::string> rows;
    for (const auto& row : result) {
      std::string text;
      for (const auto& field : row) {
        if (!text.empty()) text += '|';
        text += field.is_null() ? "-" : field.c_str();
      }
      rows.push_back(text);
    }
    return rows;
  }
  std::string value(const std::string& query) {
    const auto rows = sql(query);
    return rows.size() == 1 ? rows.front() : std::to_string(rows.size()) + " rows";
  }

  /// Until a statement waits for a lock that somebody else has.
  bool somebody_waits_for_a_lock() {
    return aw::testing::comes_true([&] { return value("SELECT count(*) FROM pg_locks WHERE NOT granted") != "0"; });
  }

  Connection open() {
    auto opened = Connection::open(target_);
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }

  aw::testing::PrivatePostgres& server_ = aw::testing::PrivatePostgres::shared();
  std::string database_;
  Target target_;

 private:
  std::unique_ptr<pqxx::connection> other_;
};

class AMigratedDatabase : public ADatabase {
 protected:
  void SetUp() override {
    ADatabase::SetUp();
    if (HasFatalFailure()) return;
    Connection connection = open();
    const auto migrated = migrate(connection, kMigrations);
    ASSERT_TRUE(migrated) << migrated.error().message;
  }
};

}  // namespace aw::postgres
