// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace aw::stories {

/// One thing that goes wrong at a failpoint: "crash", or an errno's name.
struct Fault {
  std::string point;
  std::string act;

  /// For AW_FAILPOINTS=, at that hit; what the program says when it comes to it.
  std::string order(std::uint64_t hit) const;
  std::string saying(std::uint64_t hit) const;
  /// GoogleTest's filters take '-', ':', '*' and '?' for their own, and a name of a test is one of C++'s.
  std::string test_name() const;
};

/// What a program says it has: its `--failpoints`, "NAME crash fail=EIO,ENOSPC", a line for each point.
struct Faults {
  std::vector<Fault> all;
  std::string wrong;  ///< or why there are none
};
Faults list_faults(const std::string& program);

/// Whether a point is where the shipper speaks with PostgreSQL or writes how far it is: other programs have some of the
/// same rooms in them, and never come there.
bool is_of_shipping(const std::string& point);

/// What a service has said of its points since this was made.
class Sayings {
 public:
  explicit Sayings(std::string identifier);
  std::vector<std::string> read() const;

 private:
  std::string identifier_;
  std::string cursor_;
};

/// A drop-in of a unit as long as this is there: the first start takes the orders that were left for it, and every
/// later one has none.
class OrdersForNextStart {
 public:
  explicit OrdersForNextStart(const std::string& unit);
  OrdersForNextStart(const OrdersForNextStart&) = delete;
  OrdersForNextStart& operator=(const OrdersForNextStart&) = delete;
  ~OrdersForNextStart();

  void leave(const std::string& orders) const;
  /// Where nobody has come to take them.
  void take_back() const;

 private:
  std::string next_;
  std::string folder_;
};

/// Has GoogleTest know a test that is made with these arguments.
template <class Fixture, class T, class... Arguments>
void add_test(const char* suite, const std::string& name, Arguments... arguments) {
  ::testing::RegisterTest(suite, name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                          [=]() -> Fixture* { return new T(arguments...); });
}

/// Fails with what it was given: a walk that finds nothing to walk is none.
class Nothing : public ::testing::Test {
 public:
  explicit Nothing(std::string why) : why_(std::move(why)) {}

 private:
  void TestBody() override { FAIL() << why_; }
  std::string why_;
};

}  // namespace aw::stories
