// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <iostream>

#include "cli/launcher.h"
#include "cli/run_options.h"

namespace {

using namespace aw;

/// Started with a closed stdin, stdout or stderr, the next file opened would take its place.
void open_standard_files() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0) (void)!::open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY);
  }
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_files();
  const auto options = cli::parse_run_options(argc, argv, std::cout, std::cerr);
  if (const int* status = std::get_if<int>(&options)) return *status;
  return cli::launch(std::get<cli::LaunchOptions>(options), argc, argv);
}
