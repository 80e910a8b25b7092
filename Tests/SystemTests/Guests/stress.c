// SPDX-License-Identifier: Apache-2.0
//
// A stress of what an operating system asks of a processor: processes, pipes, signals, memory
// maps, threads, and floating point in all of them across context switches.
//
//   stress [PART...]            all parts, or these
//
// Each part prints `STRESS name sum`, the same wherever it runs, and fails the program when it
// finds a wrong value itself. As process 1 the program ends the machine, and with CLOCK_SECONDS in
// its environment it first prints that many seconds' worth of `CLOCK nanoseconds` lines: twenty at
// the start, twenty at the end, with the stress in between.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xmmintrin.h>

static void check(int condition, const char *what) {
  if (condition) return;
  printf("STRESS-FAILED %s (errno %d)\n", what, errno);
  fflush(stdout);
  _exit(1);
}

static uint64_t mix(uint64_t sum, uint64_t value) {
  sum ^= value + 0x9E3779B97F4A7C15 + (sum << 6) + (sum >> 2);
  return sum * 0xFF51AFD7ED558CCD;
}

// Floating point with a rounding mode of the process's own, in x87 and SSE; a wrong register or
// control word after a switch changes the sum.
static uint64_t floats(int rounding, int rounds) {
  unsigned short x87 = 0x37F | rounding << 10;
  unsigned sse = 0x1F80 | rounding << 13;
  __asm__ volatile("fldcw %0" : : "m"(x87));
  _mm_setcsr(sse);
  volatile long double a = 1.0L / 3.0L;
  volatile double b = 1.0 / 3.0;
  volatile float c = 1.0f / 3.0f;
  uint64_t sum = rounding;
  for (int i = 1; i <= rounds; i++) {
    a = a * 1.0000001L + 1.0L / i;
    b = b * 1.0000001 + 1.0 / i;
    c = c * 1.0001f + 1.0f / i;
    if ((i & 63) == 0) {
      union { long double value; uint64_t words[2]; } whole = {0};
      union { double value; uint64_t word; } half = {b};
      union { float value; uint32_t word; } quarter = {c};
      whole.value = a;
      sum = mix(mix(mix(sum, whole.words[0]), half.word), quarter.word);
    }
    if ((i & 1023) == 0) sched_yield();
  }
  unsigned short left;
  __asm__ volatile("fnstcw %0" : "=m"(left));
  check(left == x87, "x87 control word");
  check((_mm_getcsr() & 0xFFC0) == sse, "MXCSR");
  x87 = 0x37F;
  __asm__ volatile("fldcw %0" : : "m"(x87));
  _mm_setcsr(0x1F80);
  return sum;
}

static uint64_t part_processes(void) {
  uint64_t *sums = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  check(sums != MAP_FAILED, "mmap");
  for (int round = 0; round < 3; round++) {
    pid_t pids[6];
    for (int n = 0; n < 6; n++) {
      pids[n] = fork();
      check(pids[n] >= 0, "fork");
      if (pids[n] == 0) {
        sums[round * 6 + n] = floats(n & 3, 20000 + 512 * n);
        _exit(n + 1);
      }
    }
    for (int n = 0; n < 6; n++) {
      int status;
      check(waitpid(pids[n], &status, 0) == pids[n], "waitpid");
      check(WIFEXITED(status) && WEXITSTATUS(status) == n + 1, "exit status");
    }
  }
  uint64_t sum = 0;
  for (int n = 0; n < 18; n++) sum = mix(sum, sums[n]);
  return sum;
}

static uint64_t part_exec(void) {
  uint64_t sum = 0;
  for (int n = 0; n < 12; n++) {
    int ends[2];
    check(pipe(ends) == 0, "pipe");
    pid_t pid = fork();
    check(pid >= 0, "fork");
    if (pid == 0) {
      char number[16];
      snprintf(number, sizeof number, "%d", n);
      dup2(ends[1], 1);
      close(ends[0]);
      close(ends[1]);
      execl("/proc/self/exe", "stress", "child", number, (char *)0);
      _exit(99);
    }
    close(ends[1]);
    char text[64] = {0};
    size_t length = 0;
    ssize_t got;
    while ((got = read(ends[0], text + length, sizeof text - 1 - length)) > 0) length += got;
    close(ends[0]);
    int status;
    check(waitpid(pid, &status, 0) == pid && status == 0, "child of exec");
    sum = mix(sum, strtoull(text, 0, 16));
  }
  return sum;
}

// Blocks of odd sizes go round a ring of processes, each of which changes them.
static uint64_t part_pipes(void) {
  enum { MEMBERS = 5, BLOCKS = 120 };
  int ends[MEMBERS + 1][2];
  for (int n = 0; n <= MEMBERS; n++) check(pipe(ends[n]) == 0, "pipe");
  for (int n = 0; n < MEMBERS; n++) {
    pid_t pid = fork();
    check(pid >= 0, "fork");
    if (pid == 0) {
      for (int m = 0; m <= MEMBERS; m++) {
        if (m != n) close(ends[m][0]);
        if (m != n + 1) close(ends[m][1]);
      }
      unsigned char bytes[7001];
      ssize_t got;
      while ((got = read(ends[n][0], bytes, 1 + (n * 1999 + 997) % 7001)) > 0) {
        for (ssize_t i = 0; i < got; i++) bytes[i] = bytes[i] * 5 + n;
        for (ssize_t done = 0; done < got;) {
          ssize_t put = write(ends[n + 1][1], bytes + done, got - done);
          if (put <= 0) _exit(1);
          done += put;
        }
      }
      _exit(0);
    }
  }
  for (int n = 1; n <= MEMBERS; n++) close(ends[n][1]);
  for (int n = 0; n < MEMBERS; n++) close(ends[n][0]);
  pid_t writer = fork();
  check(writer >= 0, "fork");
  if (writer == 0) {
    close(ends[MEMBERS][0]);
    unsigned char bytes[5000];
    uint32_t state = 1;
    for (int block = 0; block < BLOCKS; block++) {
      size_t size = 1 + block * 41 % 5000;
      for (size_t i = 0; i < size; i++) bytes[i] = (state = state * 1664525 + 1013904223) >> 24;
      for (size_t done = 0; done < size;) {
        ssize_t put = write(ends[0][1], bytes + done, size - done);
        if (put <= 0) _exit(1);
        done += put;
      }
    }
    _exit(0);
  }
  close(ends[0][1]);
  uint64_t sum = 0, total = 0;
  unsigned char byte[4096];
  ssize_t got;
  while ((got = read(ends[MEMBERS][0], byte, sizeof byte)) > 0) {
    for (ssize_t i = 0; i < got; i++) sum = sum * 31 + byte[i];
    total += got;
  }
  close(ends[MEMBERS][0]);
  for (int n = 0; n <= MEMBERS; n++) {
    int status;
    check(wait(&status) > 0 && status == 0, "member of the ring");
  }
  return mix(sum, total);
}

static volatile sig_atomic_t ticks;
static volatile int handler_failed;

static void tick(int number) {
  (void)number;
  // The handler has a floating-point environment of its own, and leaves it in disorder.
  volatile double x = 1.0 / 7.0;
  volatile long double y = 2.0L / 7.0L;
  for (int i = 0; i < 20; i++) {
    x = x * 1.5;
    y = y * 1.5L;
  }
  unsigned short control;
  __asm__ volatile("fnstcw %0" : "=m"(control));
  if (control != 0x37F) handler_failed = 1;
  _mm_setcsr(0x5F80);
  ticks++;
}

static uint64_t part_signals(void) {
  struct sigaction action = {.sa_handler = tick};
  check(sigaction(SIGALRM, &action, 0) == 0, "sigaction");
  check(sigaction(SIGUSR1, &action, 0) == 0, "sigaction");
  struct itimerval timer = {{0, 3000}, {0, 3000}};
  check(setitimer(ITIMER_REAL, &timer, 0) == 0, "setitimer");
  uint64_t sum = 0;
  ticks = 0;
  for (int round = 0; round < 4 || ticks < 20; round++) {
    uint64_t one = floats(round & 3, 20000);
    if (round < 4) sum = mix(sum, one);
    check(round < 4 || one == floats(round & 3, 20000), "sum with signals");
    check(round < 2000, "ticks of the timer");
    for (int n = 0; n < 8; n++) {
      int before = ticks;
      kill(getpid(), SIGUSR1);
      check(ticks > before, "signal to itself");
    }
  }
  timer.it_interval.tv_usec = timer.it_value.tv_usec = 0;
  setitimer(ITIMER_REAL, &timer, 0);
  check(!handler_failed, "control word in a handler");
  return sum;
}

static unsigned char *protected_page;
static volatile int faults;

static void fault(int number, siginfo_t *info, void *context) {
  (void)number;
  (void)context;
  check((unsigned char *)info->si_addr >= protected_page, "address of a fault");
  faults++;
  mprotect((void *)((uintptr_t)info->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE);
}

static uint64_t part_memory(void) {
  enum { SIZE = 1 << 20 };
  uint64_t sum = 0;
  unsigned char *data = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(data != MAP_FAILED, "mmap");
  for (int i = 0; i < SIZE; i += 64) data[i] = i >> 8;
  // Copy on write: what the child changes, the parent does not see.
  for (int round = 0; round < 4; round++) {
    pid_t pid = fork();
    check(pid >= 0, "fork");
    if (pid == 0) {
      for (int i = 0; i < SIZE; i += 4096) data[i] = 0xEE;
      for (int i = 0; i < SIZE; i += 4096) if (data[i] != 0xEE) _exit(1);
      _exit(0);
    }
    for (int i = 0; i < SIZE; i += 8192) data[i] = data[i] + 1;
    int status;
    check(waitpid(pid, &status, 0) == pid && status == 0, "child of copy on write");
  }
  for (int i = 0; i < SIZE; i += 64) sum = sum * 31 + data[i];
  // Growing and moving.
  data = mremap(data, SIZE, 4 * SIZE, MREMAP_MAYMOVE);
  check(data != MAP_FAILED && data[3 * SIZE] == 0, "mremap");
  for (int i = 0; i < SIZE; i += 64) sum = sum * 31 + data[i];
  // Faults that the program handles itself.
  struct sigaction action = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO};
  check(sigaction(SIGSEGV, &action, 0) == 0, "sigaction");
  protected_page = data;
  faults = 0;
  check(mprotect(data, 4 * SIZE, PROT_READ) == 0, "mprotect");
  for (int i = 0; i < 4 * SIZE; i += 32768) data[i] = 7;
  check(faults == 4 * SIZE / 32768, "number of faults");
  signal(SIGSEGV, SIG_DFL);
  check(munmap(data, 4 * SIZE) == 0, "munmap");
  // Many maps.
  for (int n = 0; n < 400; n++) {
    unsigned char *one =
        mmap(0, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(one != MAP_FAILED && one[4096] == 0, "small map");
    one[n & 4095] = n;
    one[8192] = n;
    sum = mix(sum, one[n & 4095]);
    check(munmap(one, 12288) == 0, "munmap");
  }
  return mix(sum, faults);
}

enum { THREADS = 6, TURNS = 4000 };
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t guarded;
static atomic_ullong counter;
static _Atomic uint32_t spin;
static unsigned __int128 wide __attribute__((aligned(16)));
static _Thread_local uint64_t own;
static uint64_t thread_sums[THREADS];

static void *thread(void *argument) {
  int n = (int)(intptr_t)argument;
  own = n;
  for (int i = 0; i < TURNS; i++) {
    atomic_fetch_add(&counter, 3);
    if (i % 8 == 0) {
      pthread_mutex_lock(&mutex);
      guarded = guarded * 1 + 1;
      pthread_mutex_unlock(&mutex);
    }
    if (i % 16 == 0) {
      uint32_t free = 0;
      while (!atomic_compare_exchange_weak(&spin, &free, 1)) {
        free = 0;
        sched_yield();
      }
      wide += ((unsigned __int128)1 << 64) + 1;
      atomic_store(&spin, 0);
    }
    own = mix(own, i);
  }
  thread_sums[n] = mix(own, floats(n & 3, 10000));
  return 0;
}

static uint64_t part_threads(void) {
  pthread_t threads[THREADS];
  for (int n = 0; n < THREADS; n++)
    check(pthread_create(&threads[n], 0, thread, (void *)(intptr_t)n) == 0, "pthread_create");
  for (int n = 0; n < THREADS; n++) check(pthread_join(threads[n], 0) == 0, "pthread_join");
  check(counter == 3ull * THREADS * TURNS, "atomic additions");
  check(guarded == THREADS * TURNS / 8, "mutex");
  check((uint64_t)wide == THREADS * TURNS / 16 && (uint64_t)(wide >> 64) == (uint64_t)wide, "lock");
  uint64_t sum = 0;
  for (int n = 0; n < THREADS; n++) sum = mix(sum, thread_sums[n]);
  return sum;
}

static const struct {
  const char *name;
  uint64_t (*run)(void);
} parts[] = {
    {"processes", part_processes}, {"exec", part_exec},     {"pipes", part_pipes},
    {"signals", part_signals},     {"memory", part_memory}, {"threads", part_threads},
};

static void clocks(void) {
  for (int n = 0; n < 20; n++) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("CLOCK %llu\n", now.tv_sec * 1000000000ull + now.tv_nsec);
    fflush(stdout);
    usleep(30000);
  }
}

static int run(int count, char **names) {
  for (size_t n = 0; n < sizeof parts / sizeof *parts; n++) {
    int is_wanted = count == 0;
    for (int i = 0; i < count; i++) is_wanted |= strcmp(names[i], parts[n].name) == 0;
    if (!is_wanted) continue;
    fflush(stdout);
    // Each in a process of its own: what one leaves behind is not the next one's.
    pid_t pid = fork();
    check(pid >= 0, "fork");
    if (pid == 0) {
      uint64_t sum = parts[n].run();
      printf("STRESS %s %016llx\n", parts[n].name, (unsigned long long)sum);
      fflush(stdout);
      _exit(0);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0) check(errno == EINTR, "waitpid");
    if (status != 0) {
      printf("STRESS-FAILED %s ends with %x\n", parts[n].name, status);
      return 1;
    }
  }
  return 0;
}

int main(int count, char **arguments) {
  if (count == 3 && strcmp(arguments[1], "child") == 0) {
    int n = atoi(arguments[2]);
    printf("%016llx\n", (unsigned long long)floats(n & 3, 2000 + n));
    return 0;
  }
  // Whoever started this may have blocked signals.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, 0);
  int is_init = getpid() == 1;
  if (is_init) {
    mkdir("/proc", 0755);
    mount("proc", "/proc", "proc", 0, 0);
    puts("STRESS-BEGIN");
  }
  const char *text = getenv("CLOCK_SECONDS");
  time_t end = 0;
  if (text) {
    clocks();
    end = time(0) + atoi(text);
  }
  int result = run(is_init ? 0 : count - 1, arguments + 1);
  if (text) {
    while (time(0) < end) usleep(100000);
    clocks();
  }
  puts(result == 0 ? "STRESS-END" : "STRESS-FAILED");
  fflush(stdout);
  if (is_init) {
    sync();
    reboot(RB_POWER_OFF);
  }
  return result;
}
