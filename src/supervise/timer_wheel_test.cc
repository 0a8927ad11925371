// SPDX-License-Identifier: Apache-2.0
#include "supervise/timer_wheel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <utility>

namespace aw::supervise {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr Instant kStart{hours{5}};
constexpr Span kYear = hours{24 * 365};

TimerTag tag(std::uint64_t owner) { return {owner, 0, 0}; }

class ATimerWheel : public testing::Test {
 protected:
  std::vector<std::uint64_t> fired_at(Instant now) {
    std::vector<TimerTag> fired;
    wheel.advance(now, fired);
    std::vector<std::uint64_t> owners;
    for (const TimerTag& one : fired) owners.push_back(one.owner);
    return owners;
  }

  TimerWheel wheel{kStart};
};

TEST_F(ATimerWheel, HasNothingToDoWhenNothingIsArmed) {
  EXPECT_EQ(wheel.next_expiry(), std::nullopt);
  EXPECT_THAT(fired_at(kStart + kYear), IsEmpty());
  EXPECT_EQ(wheel.size(), 0U);
}

TEST_F(ATimerWheel, FiresAtTheDueTimeAndNotAMicrosecondBefore) {
  for (const Span span :
       {Span{1}, Span{63}, Span{64}, Span{milliseconds{1}}, Span{seconds{10}}, Span{hours{3}}, kYear}) {
    TimerWheel fresh(kStart);
    std::vector<TimerTag> fired;
    fresh.arm(kStart + span, tag(1));

    EXPECT_EQ(fresh.next_expiry(), kStart + span);
    fresh.advance(kStart + span - Span{1}, fired);
    EXPECT_THAT(fired, IsEmpty());
    EXPECT_EQ(fresh.next_expiry(), kStart + span);
    fresh.advance(kStart + span, fired);

    EXPECT_THAT(fired, ElementsAre(tag(1)));
    EXPECT_EQ(fresh.next_expiry(), std::nullopt);
  }
}

TEST_F(ATimerWheel, GivesBackTheWholeTag) {
  const TimerTag given{UINT64_MAX, 7, UINT32_MAX};
  wheel.arm(kStart, given);

  std::vector<TimerTag> fired{tag(99)};
  wheel.advance(kStart, fired);

  EXPECT_THAT(fired, ElementsAre(tag(99), given));
}

TEST_F(ATimerWheel, FiresByDueTimeThenByArming) {
  wheel.arm(kStart + seconds{2}, tag(3));
  wheel.arm(kStart + seconds{1}, tag(1));
  wheel.arm(kStart + seconds{2}, tag(4));
  wheel.arm(kStart + seconds{1}, tag(2));

  EXPECT_THAT(fired_at(kStart + seconds{3}), ElementsAre(1, 2, 3, 4));
}

TEST_F(ATimerWheel, KeepsTheOrderOfArmingAcrossCascades) {
  wheel.arm(kStart + hours{1}, tag(1));
  EXPECT_THAT(fired_at(kStart + hours{1} - milliseconds{1}), IsEmpty());
  wheel.arm(kStart + hours{1}, tag(2));
  EXPECT_THAT(fired_at(kStart + hours{1} - microseconds{1}), IsEmpty());
  wheel.arm(kStart + hours{1}, tag(3));

  EXPECT_THAT(fired_at(kStart + hours{1}), ElementsAre(1, 2, 3));
}

TEST_F(ATimerWheel, FiresWhatIsOverdueAtTheNextAdvanceInTheOrderOfItsDueTimes) {
  wheel.arm(kStart - seconds{1}, tag(2));
  wheel.arm(kStart, tag(4));
  wheel.arm(kStart - hours{9}, tag(1));
  wheel.arm(kStart - seconds{1}, tag(3));
  wheel.arm(Instant::min(), tag(0));

  EXPECT_EQ(wheel.next_expiry(), Instant::min());
  EXPECT_THAT(fired_at(kStart), ElementsAre(0, 1, 2, 3, 4));
}

TEST_F(ATimerWheel, IgnoresTimeThatRunsBackwards) {
  wheel.arm(kStart + seconds{5}, tag(1));

  EXPECT_THAT(fired_at(kStart - hours{1}), IsEmpty());
  EXPECT_THAT(fired_at(Instant::min()), IsEmpty());

  EXPECT_EQ(wheel.next_expiry(), kStart + seconds{5});
  EXPECT_THAT(fired_at(kStart + seconds{5}), ElementsAre(1));
}

TEST_F(ATimerWheel, NeverFiresWhatIsArmedForNever) {
  const TimerHandle never = wheel.arm(kNever, tag(1));
  wheel.arm(kNever - Span{1}, tag(2));

  EXPECT_EQ(wheel.size(), 2U);
  EXPECT_THAT(fired_at(kNever), ElementsAre(2));
  EXPECT_EQ(wheel.next_expiry(), std::nullopt);
  EXPECT_EQ(wheel.size(), 1U);
  EXPECT_TRUE(wheel.cancel(never));
  EXPECT_FALSE(wheel.cancel(never));
  EXPECT_EQ(wheel.size(), 0U);
}

TEST_F(ATimerWheel, WorksOnAfterTheEndOfTime) {
  EXPECT_THAT(fired_at(kNever), IsEmpty());
  wheel.arm(kStart, tag(1));
  wheel.arm(kNever - Span{1}, tag(2));

  EXPECT_THAT(fired_at(kStart), ElementsAre(1, 2));
}

TEST_F(ATimerWheel, CoversEveryInstantFromTheFirstToTheLast) {
  TimerWheel whole(Instant::min());
  whole.arm(kNever - Span{1}, tag(3));
  whole.arm(Instant::min(), tag(1));
  whole.arm(Instant{Span{0}}, tag(2));

  std::vector<TimerTag> fired;
  for (int i = 0; i < 3; ++i) whole.advance(*whole.next_expiry(), fired);

  EXPECT_THAT(fired, ElementsAre(tag(1), tag(2), tag(3)));
}

TEST_F(ATimerWheel, ForgetsACancelledTimer) {
  const TimerHandle first = wheel.arm(kStart + seconds{1}, tag(1));
  wheel.arm(kStart + seconds{2}, tag(2));

  EXPECT_TRUE(wheel.cancel(first));

  EXPECT_EQ(wheel.next_expiry(), kStart + seconds{2});
  EXPECT_THAT(fired_at(kStart + seconds{3}), ElementsAre(2));
}

TEST_F(ATimerWheel, FindsTheNextDueTimeWhenTheFirstOfABucketIsCancelled) {
  const Instant near = kStart + hours{10};
  const TimerHandle first = wheel.arm(near, tag(1));
  wheel.arm(near + seconds{9}, tag(2));
  wheel.arm(near + seconds{7}, tag(3));
  wheel.cancel(first);

  EXPECT_EQ(wheel.next_expiry(), near + seconds{7});
}

TEST_F(ATimerWheel, WakesAtMostOncePerLevelForNothingWhenTheFirstOfACrowdIsCancelled) {
  const Instant near = kStart + hours{10};
  const TimerHandle first = wheel.arm(near, tag(0));
  for (std::uint64_t i = 1; i <= 1000; ++i) wheel.arm(near + microseconds{100} + microseconds{i % 7}, tag(i));
  wheel.cancel(first);

  int empty = 0;
  while (fired_at(*wheel.next_expiry()).empty()) ++empty;

  EXPECT_LE(empty, 10);
  EXPECT_EQ(wheel.size(), 1000U - 142U);
}

TEST_F(ATimerWheel, RefusesHandlesThatNameNothing) {
  const TimerHandle cancelled = wheel.arm(kStart + seconds{1}, tag(1));
  wheel.cancel(cancelled);
  const TimerHandle expired = wheel.arm(kStart + seconds{1}, tag(2));
  EXPECT_THAT(fired_at(kStart + seconds{1}), ElementsAre(2));
  const TimerHandle live = wheel.arm(kStart + seconds{2}, tag(3));

  EXPECT_FALSE(wheel.cancel({}));
  EXPECT_FALSE(wheel.cancel({12345, 0}));
  EXPECT_FALSE(wheel.cancel(cancelled));
  EXPECT_FALSE(wheel.cancel(expired));
  EXPECT_FALSE(wheel.cancel({live.slot, live.generation + 1}));
  EXPECT_EQ(wheel.size(), 1U);
  EXPECT_TRUE(wheel.cancel(live));
  EXPECT_FALSE(wheel.cancel({live.slot, live.generation + 1}));
}

TEST_F(ATimerWheel, CannotCancelWhatTheSameAdvanceHasFiredAlready) {
  const TimerHandle first = wheel.arm(kStart + seconds{1}, tag(1));
  const TimerHandle second = wheel.arm(kStart + seconds{1}, tag(2));
  EXPECT_THAT(fired_at(kStart + seconds{1}), ElementsAre(1, 2));

  // What the first one's handler would do; the slot of the second is in use again when its handle is tried.
  const TimerHandle renewed = wheel.arm(kStart + seconds{1}, tag(3));
  EXPECT_FALSE(wheel.cancel(second));
  EXPECT_FALSE(wheel.cancel(first));

  EXPECT_THAT(fired_at(kStart + seconds{1}), ElementsAre(3));
  EXPECT_FALSE(wheel.cancel(renewed));
}

TEST_F(ATimerWheel, RetiresASlotWhoseGenerationsAreUsedUp) {
  TimerWheel old(kStart, UINT32_MAX - 1);
  const TimerHandle before_last = old.arm(kStart + seconds{1}, tag(1));
  old.cancel(before_last);
  const TimerHandle last = old.arm(kStart + seconds{1}, tag(2));
  EXPECT_EQ(last.slot, before_last.slot);
  EXPECT_EQ(last.generation, UINT32_MAX);
  old.cancel(last);

  const TimerHandle next = old.arm(kStart + seconds{1}, tag(3));

  EXPECT_NE(next.slot, last.slot);
  EXPECT_FALSE(old.cancel(last));
  EXPECT_FALSE(old.cancel(before_last));
  EXPECT_FALSE(old.cancel({last.slot, 0}));
  EXPECT_TRUE(old.cancel(next));
}

TEST_F(ATimerWheel, UsesTheSlotsOfTimersThatAreGone) {
  std::uint32_t highest = 0;
  for (int i = 0; i < 10000; ++i) {
    const TimerHandle kept = wheel.arm(kStart + seconds{i}, tag(1));
    const TimerHandle other = wheel.arm(kStart + hours{i}, tag(1));
    highest = std::max({highest, kept.slot, other.slot});
    wheel.cancel(other);
    fired_at(kStart + seconds{i});
  }

  EXPECT_LT(highest, 4U);
}

TEST_F(ATimerWheel, FiresAMillionTimersOfOneInstantInTheOrderOfArming) {
  constexpr std::uint64_t kMany = 1'000'000;
  for (std::uint64_t i = 0; i < kMany; ++i) wheel.arm(kStart + hours{1}, tag(i));

  EXPECT_EQ(wheel.next_expiry(), kStart + hours{1});
  const auto fired = fired_at(kStart + hours{30});

  ASSERT_EQ(fired.size(), kMany);
  EXPECT_TRUE(std::is_sorted(fired.begin(), fired.end()));
}

/// The wheel beside a map from (due time, order of arming), under the same operations.
class BothWheels {
 public:
  explicit BothWheels(std::uint64_t seed) : random_(seed) {}

  void operate() {
    const unsigned what = below(100);
    if (what < 45) {
      arm(some_due());
    } else if (what < 75) {
      cancel_some();
    } else {
      advance(some_now());
    }
    check();
  }

  void drain() {
    while (const auto next = wheel_.next_expiry()) {
      const std::size_t before = model_.size();
      advance(std::max(*next, now_));
      wakes_for_nothing_ += model_.size() == before ? 1U : 0U;
      ++wakes_;
      check();
    }
    for (const auto& [key, tag] : model_) EXPECT_EQ(key.first, kNever) << tag.owner;
  }

  unsigned wakes() const { return wakes_; }
  unsigned wakes_for_nothing() const { return wakes_for_nothing_; }
  std::size_t fired() const { return fired_count_; }

 private:
  using Key = std::pair<Instant, std::uint64_t>;

  unsigned below(unsigned bound) { return static_cast<unsigned>(random_() % bound); }

  Span some_span() {
    switch (below(8)) {
      case 0:
        return Span{below(4)};
      case 1:
        return Span{below(200)};
      case 2:
        return milliseconds{below(30)};
      case 3:
        return microseconds{below(5'000'000)};
      case 4:
        return seconds{10};
      case 5:
        return seconds{below(7200)};
      case 6:
        return Span{std::int64_t{1} << below(56)};
      default:
        return kYear * below(5);
    }
  }

  Instant some_due() {
    switch (below(12)) {
      case 0:
        return now_;
      case 1:
        return now_ - some_span();
      case 2:
        return below(4) == 0 ? kNever : add_some();
      case 3:
        return crowd_;
      case 4:
        return crowd_ + Span{below(100)};
      default:
        return add_some();
    }
  }

  Instant add_some() {
    const Span span = some_span();
    return kNever - now_ <= span ? kNever : now_ + span;
  }

  Instant some_now() {
    const auto next = wheel_.next_expiry();
    switch (below(10)) {
      case 0:
        return now_ - some_span();
      case 1:
        return now_;
      case 2:
        return now_ + seconds{below(100)};
      case 3:
        return below(50) == 0 ? now_ + hours{below(20)} : now_ + Span{below(64)};
      case 4:
        return now_ + Span{below(100)};
      default:
        return next ? *next + Span{below(2)} : now_;
    }
  }

  void arm(Instant due) {
    const TimerTag tag{sequence_, below(5), below(7)};
    handles_.emplace_back(wheel_.arm(due, tag), Key{due, sequence_});
    model_.emplace(Key{due, sequence_}, tag);
    ++sequence_;
    if (below(200) == 0) crowd_ = add_some();
  }

  void cancel_some() {
    if (handles_.empty()) return;
    // Mostly a young one, so that it is often still armed; stale ones stay in the list and are tried again.
    const auto back = std::min<std::size_t>(handles_.size(), below(3) == 0 ? handles_.size() : 60);
    const auto& [handle, key] = handles_[handles_.size() - 1 - random_() % back];
    EXPECT_EQ(wheel_.cancel(handle), model_.erase(key) == 1);
  }

  void advance(Instant now) {
    now_ = std::max(now, now_);
    std::vector<TimerTag> expected;
    while (!model_.empty() && model_.begin()->first.first <= now_ && model_.begin()->first.first != kNever) {
      expected.push_back(model_.begin()->second);
      model_.erase(model_.begin());
    }
    std::vector<TimerTag> fired;
    wheel_.advance(now, fired);
    fired_count_ += fired.size();
    ASSERT_TRUE(fired == expected) << "at " << now_.time_since_epoch().count();
  }

  void check() {
    ASSERT_EQ(wheel_.size(), model_.size());
    const auto next = wheel_.next_expiry();
    const bool waiting = !model_.empty() && model_.begin()->first.first != kNever;
    ASSERT_EQ(next.has_value(), waiting);
    if (waiting) {
      ASSERT_LE(*next, model_.begin()->first.first);
    }
  }

  std::mt19937_64 random_;
  Instant now_ = kStart;
  Instant crowd_ = kStart + hours{1};
  TimerWheel wheel_{kStart};
  std::map<Key, TimerTag> model_;
  std::vector<std::pair<TimerHandle, Key>> handles_;
  std::uint64_t sequence_ = 0;
  unsigned wakes_ = 0;
  unsigned wakes_for_nothing_ = 0;
  std::size_t fired_count_ = 0;
};

class ATimerWheelAndANaiveModel : public testing::TestWithParam<std::uint64_t> {};

TEST_P(ATimerWheelAndANaiveModel, DoTheSame) {
  BothWheels both(GetParam());
  for (int i = 0; i < 100'000 && !testing::Test::HasFatalFailure(); ++i) both.operate();
  both.drain();

  EXPECT_GT(both.fired(), 10'000U);
  EXPECT_LE(both.wakes_for_nothing() * 100, both.wakes());
}

INSTANTIATE_TEST_SUITE_P(Seeds, ATimerWheelAndANaiveModel, testing::Range<std::uint64_t>(1, 9));

}  // namespace
}  // namespace aw::supervise
