// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>
#include <sys/types.h>

#include <csignal>
#include <thread>
#include <utility>

namespace aw {

/// All signals are blocked for the calling thread as long as this lives, and for whatever threads it starts meanwhile.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

/// A thread that no signal ever goes to: ours belong to the loop. `name` (at most 15 bytes) is what `top -H` and a core
/// show it as. Throws std::system_error where there is none to be had.
template <class Work>
std::thread start_thread(const char* name, Work&& work) {
  const SignalsBlocked blocked;
  std::thread thread(std::forward<Work>(work));
  pthread_setname_np(thread.native_handle(), name);  // Only a name.
  return thread;
}

/// Whether a thread of ours is in an uninterruptible sleep at present (D), as one that waits for a disk is.
bool sleeps_uninterruptibly(pid_t thread);

}  // namespace aw
