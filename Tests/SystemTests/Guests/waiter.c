// SPDX-License-Identifier: Apache-2.0
//
// A first process that says that it is there, and waits for ever.

#include <unistd.h>

int main(void) {
  write(1, "INIT-READY\n", 11);
  for (;;) pause();
}
