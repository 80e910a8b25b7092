// SPDX-License-Identifier: Apache-2.0
//
// The host's own processor as the judge of the software CPU.
//
//   hostcpu FILE
//
// FILE is shared with who asks: an array of `struct Case`. For each 32-bit number N on the
// standard input the first N cases are executed, and N is written to the standard output. A case
// is one instruction of user mode with all its registers, which the signal frame of the kernel
// loads and saves: the handler of the trap that ends a case starts the next one. Memory stays as
// the case before has left it.
//
// No C library: its thread pointer would not survive loads of FS, and its vector code would use
// the registers that are under test.

#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>

enum {
  CODE = 0x10000000,
  DATA = 0x20000000,
  DATA_BYTES = 0x2000,
  FS_BASE = DATA + 0x100,
  GS_BASE = DATA + 0x800,
  USER_DATA = 0x2B,
  // What stands for a vector when a case does not end.
  NO_END = 0x100,
};

struct Registers {
  // RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
  uint64_t gpr[16];
  uint64_t rip, rflags, cs, ss;
  uint64_t ds, es, fs, gs;
  uint64_t fs_base, gs_base;
  uint64_t vector, error_code, cr2;
  uint64_t reserved[35];
  uint8_t fxsave[512];
};

struct Case {
  struct Registers before;
  struct Registers after;
  // Where `code` goes, and 64 bytes of data.
  uint64_t code_at, data_at;
  uint8_t code[16];
  uint8_t data[64];
  uint64_t reserved[52];
  uint8_t memory[DATA_BYTES];
};

_Static_assert(sizeof(struct Registers) == 1024, "as the asking side has it");
_Static_assert(sizeof(struct Case) == 2560 + DATA_BYTES, "as the asking side has it");

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

static struct Case *cases;
static uint32_t count, current;
static int is_running;
static greg_t own_registers[NGREG];
static uint8_t own_fxsave[512];
static uint8_t signal_stack[65536] __attribute__((aligned(64)));

static long call(long number, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

static void quit(int code) {
  for (;;) call(SYS_exit_group, code, 0, 0, 0, 0, 0);
}

void *memcpy(void *to, const void *from, size_t size) {
  void *start = to;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return start;
}

void *memset(void *to, int value, size_t size) {
  void *start = to;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
  return start;
}

static void watch(long seconds) {
  struct itimerval timer = {{0, 0}, {seconds, 0}};
  call(SYS_setitimer, ITIMER_REAL, (long)&timer, 0, 0, 0, 0);
}

static uint64_t base_of(int code) {
  uint64_t value = 0;
  call(SYS_arch_prctl, code, (long)&value, 0, 0, 0, 0);
  return value;
}

static void load_segments(void) {
  __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(USER_DATA));
  __asm__ volatile("mov %0, %%fs; mov %0, %%gs" : : "r"(0));
  call(SYS_arch_prctl, 0x1002, FS_BASE, 0, 0, 0, 0);
  call(SYS_arch_prctl, 0x1001, GS_BASE, 0, 0, 0, 0);
}

static void begin(struct Case *c, ucontext_t *context) {
  greg_t *g = context->uc_mcontext.gregs;
  uint8_t *frame = (uint8_t *)context->uc_mcontext.fpregs;
  for (int i = 0; i < 16; i++) g[greg_of[i]] = c->before.gpr[i];
  g[REG_RIP] = c->before.rip;
  g[REG_EFL] = c->before.rflags;
  g[REG_CSGSFS] = c->before.cs | c->before.ss << 48;
  // Not the last 96 bytes: what the kernel says of the frame is there.
  memcpy(frame, c->before.fxsave, 416);
  *(uint64_t *)(frame + 512) |= 3;
  memset((void *)CODE, 0xCC, 4096);
  size_t room = CODE + 4096 - c->code_at;
  memcpy((void *)c->code_at, c->code, room < 16 ? room : 16);
  memcpy((void *)c->data_at, c->data, 64);
  load_segments();
}

static void end(struct Case *c, ucontext_t *context, int signal) {
  greg_t *g = context->uc_mcontext.gregs;
  struct Registers *r = &c->after;
  uint64_t selector;
  for (int i = 0; i < 16; i++) r->gpr[i] = g[greg_of[i]];
  r->rip = g[REG_RIP];
  r->rflags = g[REG_EFL];
  r->cs = g[REG_CSGSFS] & 0xFFFF;
  r->ss = (uint64_t)g[REG_CSGSFS] >> 48;
  __asm__ volatile("mov %%fs, %0" : "=r"(selector));
  r->fs = selector;
  __asm__ volatile("mov %%gs, %0" : "=r"(selector));
  r->gs = selector;
  r->fs_base = base_of(0x1003);
  r->gs_base = base_of(0x1004);
  r->vector = signal == SIGALRM ? NO_END : g[REG_TRAPNO];
  r->error_code = g[REG_ERR];
  r->cr2 = g[REG_CR2];
  memcpy(r->fxsave, context->uc_mcontext.fpregs, 512);
  memcpy(c->memory, (void *)DATA, DATA_BYTES);
}

__attribute__((used)) static void handle(int signal, siginfo_t *info, void *opaque,
                                         uint64_t ds, uint64_t es) {
  ucontext_t *context = opaque;
  (void)info;
  if (!is_running) {
    if (signal == SIGALRM) return;
    if (signal != SIGILL) quit(10);
    is_running = 1;
    memcpy(own_registers, context->uc_mcontext.gregs, sizeof own_registers);
    memcpy(own_fxsave, context->uc_mcontext.fpregs, 416);
  } else {
    end(&cases[current], context, signal);
    cases[current].after.ds = ds;
    cases[current].after.es = es;
    if (signal == SIGALRM) watch(2);
    current += 1;
  }
  if (current < count) {
    begin(&cases[current], context);
  } else {
    is_running = 0;
    memcpy(context->uc_mcontext.gregs, own_registers, sizeof own_registers);
    memcpy(context->uc_mcontext.fpregs, own_fxsave, 416);
    // After the UD2.
    context->uc_mcontext.gregs[REG_RIP] += 2;
  }
}

// Alignment checks may be on, and DS and ES are anything. AC, NT and ID are not the signal frame's
// to restore: the next case begins with ID set and NT clear.
__asm__(
    ".text\n"
    "enter:\n"
    "  pushfq\n"
    "  andl $~0x44000, (%rsp)\n"
    "  orl $0x200000, (%rsp)\n"
    "  popfq\n"
    "  mov %ds, %ecx\n"
    "  mov %es, %r8d\n"
    "  jmp handle\n"
    "restore:\n"
    "  mov $15, %eax\n"
    "  syscall\n"
    ".globl _start\n"
    "_start:\n"
    "  mov 16(%rsp), %rdi\n"
    "  and $-16, %rsp\n"
    "  call run\n");

extern char enter[], restore[];

static void map(uint64_t address, size_t size, int protection) {
  long result = call(SYS_mmap, address, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (result != (long)address) quit(11);
  memset((void *)address, 0x5A, size);
  call(SYS_mprotect, address, size, protection, 0, 0, 0);
}

__attribute__((used, noreturn)) static void run(const char *path) {
  long file = call(SYS_open, (long)path, 2, 0, 0, 0, 0);
  if (file < 0) quit(12);
  uint64_t size = call(SYS_lseek, file, 0, 2, 0, 0, 0);
  long memory = call(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory < 0 && memory > -4096) quit(13);
  cases = (struct Case *)memory;
  map(CODE, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC);
  map(DATA, DATA_BYTES, PROT_READ | PROT_WRITE);
  map(DATA + DATA_BYTES, 0x1000, PROT_READ);

  stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
  call(SYS_sigaltstack, (long)&stack, 0, 0, 0, 0, 0);
  struct {
    void *handler;
    uint64_t flags;
    void *restorer;
    uint64_t mask;
  } action = {enter, SA_SIGINFO | SA_ONSTACK | SA_NODEFER | 0x04000000, restore, ~0ull};
  // Whoever started this may have blocked signals.
  uint64_t none = 0;
  call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, 8, 0, 0);
  static const int signals[] = {SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGALRM};
  for (int i = 0; i < 6; i++)
    if (call(SYS_rt_sigaction, signals[i], (long)&action, 0, 8, 0, 0) != 0) quit(14);

  for (;;) {
    uint32_t number;
    if (call(SYS_read, 0, (long)&number, 4, 0, 0, 0) != 4) quit(0);
    if (number > size / sizeof(struct Case)) quit(15);
    count = number;
    current = 0;
    watch(2);
    __asm__ volatile("ud2" : : : "memory");
    watch(0);
    load_segments();
    if (call(SYS_write, 1, (long)&number, 4, 0, 0, 0) != 4) quit(0);
  }
}
