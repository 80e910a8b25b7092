// SPDX-License-Identifier: Apache-2.0
// devicebench.c - the first process of a guest that measures its first IDE disk, its first serial
// port and its screen in text mode.
// Build: gcc -O2 -static devicebench.c -o devicebench
// It loads /modules/*.ko in the order of their names, waits for the disk, and for each phase says
//   DB begin NAME / DB end NAME BYTES OPERATIONS NANOSECONDS
// on the console, with a pause at each side, so that who listens can look at the clock of the
// processors in between. On the disk everything is O_DIRECT, one request at a time, as dd does it
// with iflag=direct. Kernel command line: DB_DISK=/dev/sda DB_MIB=256 DB_READS=2000 DB_LINES=20000.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <linux/fs.h>

#define BLOCK (1 << 20)

static void end(const char *text) {
  printf("DB failed: %s: %s\n", text, strerror(errno));
  fflush(stdout);
  usleep(200000);
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t number(const char *name, uint64_t standard) {
  const char *text = getenv(name);
  return text ? strtoull(text, NULL, 0) : standard;
}

static void load_modules(void) {
  struct dirent **names;
  int count = scandir("/modules", &names, NULL, alphasort);
  for (int index = 0; index < count; index++) {
    char path[300];
    if (names[index]->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "/modules/%s", names[index]->d_name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || syscall(SYS_finit_module, file, "", 0) != 0) end(path);
    close(file);
  }
}

static uint64_t began;

static void begin(const char *name) {
  usleep(300000);
  printf("DB begin %s\n", name);
  fflush(stdout);
  usleep(300000);
  began = now();
}

static void finish(const char *name, uint64_t bytes, uint64_t operations) {
  uint64_t took = now() - began;
  usleep(100000);
  printf("DB end %s %llu %llu %llu\n", name, (unsigned long long)bytes,
         (unsigned long long)operations, (unsigned long long)took);
  fflush(stdout);
}

// Writes lines of 64 characters to a terminal, and waits until it has taken all of them.
static void lines(const char *phase, const char *name, uint64_t count) {
  int terminal = open(name, O_WRONLY | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0) end(name);
  struct termios mode;
  if (tcgetattr(terminal, &mode) != 0) end(name);
  cfmakeraw(&mode);
  mode.c_oflag = strcmp(phase, "screen") == 0 ? OPOST | ONLCR : 0;
  if (tcsetattr(terminal, TCSANOW, &mode) != 0) end(name);
  char text[64], number[21];
  memset(text, '-', sizeof text);
  text[8] = ' ';
  text[63] = '\n';
  begin(phase);
  for (uint64_t line = 0; line < count; line++) {
    snprintf(number, sizeof number, "%08llu", (unsigned long long)line);
    memcpy(text, number, 8);
    if (write(terminal, text, 64) != 64) end(name);
  }
  if (tcdrain(terminal) != 0) end(name);
  finish(phase, count * 64, count);
  close(terminal);
}

int main(void) {
  mount("dev", "/dev", "devtmpfs", 0, "");
  mount("proc", "/proc", "proc", 0, "");
  load_modules();
  const char *name = getenv("DB_DISK") ? getenv("DB_DISK") : "/dev/sda";
  int disk = -1;
  for (int turn = 0; turn < 1200 && disk < 0; turn++) {
    disk = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (disk < 0) usleep(50000);
  }
  uint64_t size = 0;
  if (disk < 0 || ioctl(disk, BLKGETSIZE64, &size) != 0) end(name);
  uint64_t bytes = number("DB_MIB", 256) << 20;
  if (bytes > size) bytes = size;
  uint64_t reads = number("DB_READS", 2000);
  uint8_t *buffer = NULL;
  if (posix_memalign((void **)&buffer, 4096, BLOCK) != 0) end("memory");

  begin("read");
  for (uint64_t at = 0; at + BLOCK <= bytes; at += BLOCK)
    if (pread(disk, buffer, BLOCK, (off_t)at) != BLOCK) end("read");
  finish("read", bytes, bytes / BLOCK);

  for (size_t at = 0; at < BLOCK; at++) buffer[at] = (uint8_t)(at * 7 + at / 512);
  begin("write");
  for (uint64_t at = 0; at + BLOCK <= bytes; at += BLOCK)
    if (pwrite(disk, buffer, BLOCK, (off_t)at) != BLOCK) end("write");
  finish("write", bytes, bytes / BLOCK);

  uint64_t random = 0x9E3779B97F4A7C15u;
  begin("random");
  for (uint64_t turn = 0; turn < reads; turn++) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    uint64_t at = (random >> 20) % (size / 4096) * 4096;
    if (pread(disk, buffer, 4096, (off_t)at) != 4096) end("random");
  }
  finish("random", reads * 4096, reads);

  lines("serial", "/dev/ttyS0", (1 << 20) / 64);
  lines("screen", "/dev/tty1", number("DB_LINES", 20000));

  printf("DB done\n");
  fflush(stdout);
  usleep(200000);
  reboot(RB_POWER_OFF);
  for (;;) pause();
}
