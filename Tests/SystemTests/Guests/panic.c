// SPDX-License-Identifier: Apache-2.0
//
// As a guest's first process: loads the driver of the panic port, and has the kernel panic.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

static void say(const char *text) {
  int console = open("/dev/console", O_WRONLY);
  if (write(console, text, strlen(text)) < 0) _exit(1);
  close(console);
}

int main(void) {
  mount("dev", "/dev", "devtmpfs", 0, "");
  mount("proc", "/proc", "proc", 0, "");
  const char *modules[] = {"/pvpanic.ko", "/pvpanic-mmio.ko"};
  for (int i = 0; i < 2; i++) {
    int file = open(modules[i], O_RDONLY);
    if (syscall(SYS_finit_module, file, "", 0) != 0) say("MODULE-FAILED\n");
  }
  say("PANIC-NOW\n");
  int trigger = open("/proc/sysrq-trigger", O_WRONLY);
  if (write(trigger, "c", 1) < 0) say("NO-TRIGGER\n");
  for (;;) pause();
}
