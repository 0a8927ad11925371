// SPDX-License-Identifier: Apache-2.0
#include "postgres/connection.h"

#include <fstream>

#include "postgres/database_fixture.h"

#if PQXX_VERSION_MAJOR < 7
// libpqxx 6 loses the answer to a statement that has lost the connection: it asks for the encoding, which throws,
// before anything owns it. LeakSanitizer looks for a function of this name.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:pqxx::connection_base::exec\n"; }
#endif

namespace aw::postgres {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string parameters(const std::string& uri, Access access = Access::kReadWrite) {
  Target target;
  target.uri = uri;
  target.access = access;
  auto made = connection_parameters(target);
  return made ? *made : made.error().message;
}

TEST(ConnectionParameters, KeepEveryHostAndAskForOneThatTakesWrites) {
  EXPECT_THAT(parameters("postgresql://watch@one:5433,two/shared"),
              AllOf(HasSubstr("host='one,two'"), HasSubstr("port='5433,'"), HasSubstr("user='watch'"),
                    HasSubstr("dbname='shared'"), HasSubstr("target_session_attrs='read-write'"),
                    HasSubstr("client_encoding='UTF8'"), HasSubstr("connect_timeout='10'")));
}

TEST(ConnectionParameters, TakeAnyServerForReading) {
  EXPECT_THAT(parameters("host=one", Access::kAny), Not(HasSubstr("target_session_attrs")));
}

TEST(ConnectionParameters, LetTheAddressSpeakForItself) {
  EXPECT_THAT(
      parameters("postgresql://one/shared?connect_timeout=3&application_name=mine&target_session_attrs=primary"),
      AllOf(HasSubstr("connect_timeout='3'"), HasSubstr("application_name='mine'"),
            HasSubstr("target_session_attrs='primary'"), Not(HasSubstr("read-write"))));
}

TEST(ConnectionParameters, AreQuoted) {
  EXPECT_THAT(parameters("host=one dbname='it\\'s \\\\ here'"), HasSubstr("dbname='it\\'s \\\\ here'"));
}

TEST(ConnectionParameters, RefuseAPasswordWithoutRepeatingIt) {
  for (const char* uri : {"postgresql://watch:s3cret@one/shared", "host=one password=s3cret",
                          "postgresql://one/shared?password=s3cret", "postgresql://watch:s3cret@[::1/shared"}) {
    Target target;
    target.uri = uri;

    const auto made = connection_parameters(target);

    ASSERT_FALSE(made) << uri;
    EXPECT_EQ(fault_of(made.error()), Fault::kSettings);
    EXPECT_THAT(made.error().message, Not(HasSubstr("s3cret")));
  }
}

TEST(ConnectionParameters, RefuseWhatIsNoAddress) {
  EXPECT_THAT(parameters("hots=one"), HasSubstr("invalid connection option \"hots\""));
}

TEST(AConnection, ThatCannotBeMadeSaysWhy) {
  Target target;
  target.uri = "host=/nowhere dbname=none";

  const auto connection = Connection::open(target);

  ASSERT_FALSE(connection);
  EXPECT_EQ(fault_of(connection.error()), Fault::kUnreachable);
  EXPECT_THAT(connection.error().message, HasSubstr("/nowhere"));
}

TEST(Sqlstate, IsSortedByWhatToDo) {
  EXPECT_EQ(parse_sqlstate("22P02"), Fault::kData);
  EXPECT_EQ(parse_sqlstate("25006"), Fault::kReadOnly);
  EXPECT_EQ(parse_sqlstate("40P01"), Fault::kBusy);
  EXPECT_EQ(parse_sqlstate("42501"), Fault::kDenied);
  EXPECT_EQ(parse_sqlstate("42P01"), Fault::kNoSchema);
  EXPECT_EQ(parse_sqlstate("53100"), Fault::kFull);
  EXPECT_EQ(parse_sqlstate("57014"), Fault::kBusy);
  EXPECT_EQ(parse_sqlstate("57P01"), Fault::kUnreachable);
  EXPECT_EQ(parse_sqlstate("XX000"), Fault::kOther);
  EXPECT_EQ(parse_sqlstate(""), Fault::kOther);
}

TEST_F(ADatabase, KnowsItsClientsByName) {
  target_.application_name = "a watchdog's shipper";
  Connection connection = open();

  EXPECT_EQ(value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'a watchdog''s shipper'"), "1");
}

TEST_F(ADatabase, IsOpenedWithAPasswordFromAFile) {
  const std::filesystem::path file = server_.directory() / "credential";
  std::ofstream(file) << "s3cret\n";
  target_.password_file = file;

  EXPECT_TRUE(Connection::open(target_));

  target_.password_file = server_.directory() / "no-such-file";
  const auto without = Connection::open(target_);
  ASSERT_FALSE(without);
  EXPECT_EQ(fault_of(without.error()), Fault::kSettings);
}

TEST_F(ADatabase, IsNotOpenedTwiceBehindOurBack) {
  Connection connection = open();
  ASSERT_TRUE(read_schema_version(connection));
  sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'analysis-watchdog' "
      "AND datname = '" +
      database_ + "'");

  for (int i = 0; i < 2; ++i) {
    const auto version = read_schema_version(connection);
    ASSERT_FALSE(version);
    EXPECT_EQ(fault_of(version.error()), Fault::kUnreachable) << version.error().message;
  }
}

}  // namespace
}  // namespace aw::postgres
