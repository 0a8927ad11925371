// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "support/process.h"

namespace aw::stories {

inline constexpr char kShipperUnit[] = "analysis-watchdog-shipper.service";

/// What a program says when it is told to do something that must work.
std::string told(const Words& words, const std::string& input = "");

/// A database of the guest's own PostgreSQL, to which the watchdog's events are shipped as long as this is there. One
/// at a time.
class SharedStore {
 public:
  /// Starts the server, with a role each for root and the shipper.
  static void start_server();
  static void stop_server();

  /// An empty database, and the configuration that names it.
  explicit SharedStore(std::string database);
  SharedStore(const SharedStore&) = delete;
  SharedStore& operator=(const SharedStore&) = delete;
  /// Stops the shipper, and has nothing shipped any more.
  ~SharedStore();

  /// The schema and the grants, as the manual has it, and the shipper's start.
  void set_up() const;
  /// Takes the database out of the configuration.
  static void unconfigure();

  /// Rows as "a|b|c".
  std::vector<std::string> sql(const std::string& statement) const;
  /// The same where it may fail: as psql has printed them.
  std::string try_sql(const std::string& statement) const;
  static void sql_as_admin(const std::string& statement);
  /// Ends the shipper's connection, in whatever it is about.
  static void cut_off();

  static std::string status_text();

 private:
  std::string database_;
};

}  // namespace aw::stories
