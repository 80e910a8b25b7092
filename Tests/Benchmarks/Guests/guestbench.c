// SPDX-License-Identifier: Apache-2.0
// guestbench.c - micro-benchmarks for a full-system x86-64 machine, runnable as /init, from a guest
// shell and natively, so that each figure has a ratio "machine / native".
// Build: gcc -O2 -fno-strict-aliasing -static -pthread guestbench.c -o guestbench
// Use:   guestbench [cpu] [name ...]         all (or the named) CPU kernels
//        guestbench disk DEV [write]          O_DIRECT sequential 1 MiB + 4 KiB random QD1 (write destroys DEV)
//        guestbench tty DEV BYTES             characters per second to a terminal
//        guestbench fb                        write bandwidth to /dev/fb0 (mmap) and VGA text page 0xb8000
//        guestbench spin SECONDS              busy loop
// As pid 1 it mounts /proc /sys /dev, takes its arguments from the environment (the kernel passes
// unknown "KEY=value" words of its command line to init): GB_RUN="cpu,sieve,sha256", GB_MS=300
// (target milliseconds per repetition), GB_REPS=3, GB_END=poweroff|reboot|halt|shell.
// Each line: GB <name> <median ns/op> <min> <max> <median tsc/op> <check>; the check word is a pure
// function of the kernel's fixed unit of work: it must be equal on every machine (a correctness test).
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/fb.h>
#include <linux/fs.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t u64; typedef uint32_t u32; typedef uint8_t u8;
#define NOINL __attribute__((noinline))
static u64 now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static inline u64 tsc(void) { u32 a, d; __asm__ volatile("rdtsc" : "=a"(a), "=d"(d)); return (u64)d << 32 | a; }
static u64 target_ns = 300000000ull; static int reps = 3;
static char selfpath[256];

// ---- kernels: run n units; return a check word of ONE unit (independent of n) --------------------
static u8 sv[65536];
static NOINL u64 k_sieve(u64 n) {                     // op = one sieve of 65536
  u64 c = 0;
  for (u64 r = 0; r < n; r++) {
    memset(sv, 1, sizeof sv); c = 0;
    for (u32 i = 2; i < 65536; i++) if (sv[i]) { c++; for (u32 j = i + i; j < 65536; j += i) sv[j] = 0; }
    __asm__ volatile("" ::: "memory");
  }
  return c;
}
static NOINL u64 k_alu(u64 n) {                       // op = 1000 xorshift+mul+rot rounds, registers only
  u64 x = 0;
  for (u64 r = 0; r < n; r++) {
    x = 88172645463325252ull;
    for (int i = 0; i < 1000; i++) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; x = x * 6364136223846793005ull + 1442695040888963407ull; x = x << 9 | x >> 55; }
    __asm__ volatile("" : "+r"(x));
  }
  return x;
}
static const u32 K256[64] = {
0x428a2f98,0x71374491,0xb5c0fbcf,0xe9b5dba5,0x3956c25b,0x59f111f1,0x923f82a4,0xab1c5ed5,0xd807aa98,0x12835b01,0x243185be,0x550c7dc3,0x72be5d74,0x80deb1fe,0x9bdc06a7,0xc19bf174,
0xe49b69c1,0xefbe4786,0x0fc19dc6,0x240ca1cc,0x2de92c6f,0x4a7484aa,0x5cb0a9dc,0x76f988da,0x983e5152,0xa831c66d,0xb00327c8,0xbf597fc7,0xc6e00bf3,0xd5a79147,0x06ca6351,0x14292967,
0x27b70a85,0x2e1b2138,0x4d2c6dfc,0x53380d13,0x650a7354,0x766a0abb,0x81c2c92e,0x92722c85,0xa2bfe8a1,0xa81a664b,0xc24b8b70,0xc76c51a3,0xd192e819,0xd6990624,0xf40e3585,0x106aa070,
0x19a4c116,0x1e376c08,0x2748774c,0x34b0bcb5,0x391c0cb3,0x4ed8aa4a,0x5b9cca4f,0x682e6ff3,0x748f82ee,0x78a5636f,0x84c87814,0x8cc70208,0x90befffa,0xa4506ceb,0xbef9a3f7,0xc67178f2};
#define ROR(x, k) ((x) >> (k) | (x) << (32 - (k)))
static u8 shabuf[65536];
static NOINL u64 k_sha256(u64 n) {                    // op = 64 KiB hashed
  u32 h[8] = {0};
  for (u64 r = 0; r < n; r++) {
    static const u32 iv[8] = {0x6a09e667,0xbb67ae85,0x3c6ef372,0xa54ff53a,0x510e527f,0x9b05688c,0x1f83d9ab,0x5be0cd19};
    memcpy(h, iv, 32);
    for (u32 o = 0; o < sizeof shabuf; o += 64) {
      u32 w[64];
      for (int i = 0; i < 16; i++) { u32 v; memcpy(&v, shabuf + o + 4 * i, 4); w[i] = __builtin_bswap32(v); }
      for (int i = 16; i < 64; i++) w[i] = w[i-16] + w[i-7] + (ROR(w[i-15],7) ^ ROR(w[i-15],18) ^ w[i-15] >> 3) + (ROR(w[i-2],17) ^ ROR(w[i-2],19) ^ w[i-2] >> 10);
      u32 a=h[0],b=h[1],c=h[2],d=h[3],e=h[4],f=h[5],g=h[6],k=h[7];
      for (int i = 0; i < 64; i++) {
        u32 t1 = k + (ROR(e,6) ^ ROR(e,11) ^ ROR(e,25)) + ((e & f) ^ (~e & g)) + K256[i] + w[i];
        u32 t2 = (ROR(a,2) ^ ROR(a,13) ^ ROR(a,22)) + ((a & b) ^ (a & c) ^ (b & c));
        k=g; g=f; f=e; e=d+t1; d=c; c=b; b=a; a=t1+t2;
      }
      h[0]+=a; h[1]+=b; h[2]+=c; h[3]+=d; h[4]+=e; h[5]+=f; h[6]+=g; h[7]+=k;
    }
  }
  return (u64)h[0] << 32 | h[7];
}
#define BIG (64u << 20)
static u8 *big1, *big2;
static void need_big(void) {
  if (big1) return;
  big1 = mmap(0, BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  big2 = mmap(0, BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (big1 == MAP_FAILED || big2 == MAP_FAILED) { perror("mmap"); exit(1); }
  memset(big1, 1, BIG); memset(big2, 2, BIG);
}
static int filled;
static void free_big(void) { if (big1) { munmap(big1, BIG); munmap(big2, BIG); big1 = big2 = 0; filled = 0; } }
static NOINL u64 k_memcpy(u64 n) { need_big(); for (u64 r = 0; r < n; r++) { memcpy(big1, big2, BIG); __asm__ volatile("" ::: "memory"); } return big1[12345]; }
static NOINL u64 k_memset(u64 n) { need_big(); for (u64 r = 0; r < n; r++) { memset(big1, 7, BIG); __asm__ volatile("" ::: "memory"); } return big1[54321]; }
static NOINL u64 k_repmovsb(u64 n) { need_big(); for (u64 r = 0; r < n; r++) { void *d = big1, *s = big2; u64 c = BIG; __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(c) :: "memory"); } return big1[777]; }
static NOINL u64 k_repstosq(u64 n) { need_big(); for (u64 r = 0; r < n; r++) { void *d = big1; u64 c = BIG / 8; __asm__ volatile("rep stosq" : "+D"(d), "+c"(c) : "a"(0x0101010101010101ull) : "memory"); } return big1[777]; }
static NOINL u64 k_readsum(u64 n) {                   // op = 64 MiB read with 8-byte loads
  need_big(); u64 s = 0;
  if (!filled) { filled = 1; for (u64 i = 0; i < BIG / 8; i++) ((u64 *)big2)[i] = i * 0x9e3779b97f4a7c15ull; }
  for (u64 r = 0; r < n; r++) { s = 0; const u64 *p = (const u64 *)big2; for (u64 i = 0; i < BIG / 8; i += 4) { s += p[i]; s ^= p[i+1]; s += p[i+2]; s ^= p[i+3]; __asm__ volatile("" : "+r"(s)); } }
  return s;
}
static u32 *chain; static u32 chain_len;
static void mkchain(u32 bytes) {                      // one cycle through cache lines in a fixed pseudo-random order
  need_big(); if (filled && chain_len == bytes / 64) return; filled = 1; chain = (u32 *)big1; u32 n = bytes / 64; chain_len = n;
  u32 *perm = (u32 *)big2; for (u32 i = 0; i < n; i++) perm[i] = i;
  u64 x = 42; for (u32 i = n - 1; i > 0; i--) { x = x * 6364136223846793005ull + 1442695040888963407ull; u32 j = (x >> 33) % (i + 1); u32 t = perm[i]; perm[i] = perm[j]; perm[j] = t; }
  for (u32 i = 0; i < n; i++) chain[perm[i] * 16] = perm[(i + 1) % n] * 16;
}
static u64 chase(u64 n) { u64 first = 0; u32 p = 0; for (u64 r = 0; r < n; r++) { for (int i = 0; i < 1000; i++) p = chain[p]; if (!r) first = p; } __asm__ volatile("" :: "r"(p)); return first; }
static NOINL u64 k_chase16k(u64 n) { mkchain(16 << 10); return chase(n); }   // op = 1000 dependent loads
static NOINL u64 k_chase1m(u64 n) { mkchain(1 << 20); return chase(n); }     // fits 256 guest pages
static NOINL u64 k_chase64m(u64 n) { mkchain(64 << 20); return chase(n); }   // 16384 guest pages: beats every TLB

// branchy bytecode interpreter: 1000-iteration loop of 7 bytecodes; switch (indirect jump) dispatch
static const u8 prog[] = {0,1, 2,3, 1,7, 3,5, 4,0, 5,1, 6,0, 7,0};
static NOINL u64 interp(const u8 *code, u64 count) {
  u64 acc = 1, pc = 0, ctr = count; u64 reg[8] = {1,2,3,4,5,6,7,8};
  for (;;) {
    u8 op = code[pc], a = code[pc + 1]; pc += 2;
    switch (op) {
      case 0: acc += reg[a]; break;
      case 1: acc ^= acc << (a & 31); break;
      case 2: reg[a] = acc; break;
      case 3: if (acc & 1) acc = acc * 3 + a; else acc >>= 1; break;
      case 4: acc += pc; break;
      case 5: reg[a] += acc >> 3; break;
      case 6: if (--ctr) pc = 0; break;
      default: return acc ^ reg[1];
    }
  }
}
static NOINL u64 k_interp(u64 n) { u64 v = 0; for (u64 r = 0; r < n; r++) v = interp(prog, 1000); return v; }   // op = 7000 bytecodes
static NOINL u32 fib(u32 x) { return x < 2 ? x : fib(x - 1) + fib(x - 2); }
static NOINL u64 k_fib(u64 n) { volatile u32 a = 20; u64 v = 0; for (u64 r = 0; r < n; r++) v = fib(a); return v; }       // call/ret heavy
static u32 (*volatile fns[8])(u32);
static NOINL u32 f0(u32 x){return x+1;} static NOINL u32 f1(u32 x){return x*3;} static NOINL u32 f2(u32 x){return x^0x55;} static NOINL u32 f3(u32 x){return x-9;}
static NOINL u32 f4(u32 x){return x<<1;} static NOINL u32 f5(u32 x){return x>>1;} static NOINL u32 f6(u32 x){return ~x;} static NOINL u32 f7(u32 x){return x+77;}
static NOINL u64 k_icall(u64 n) {                     // op = 1000 indirect calls to 8 targets in data-dependent order
  fns[0]=f0;fns[1]=f1;fns[2]=f2;fns[3]=f3;fns[4]=f4;fns[5]=f5;fns[6]=f6;fns[7]=f7; u32 x = 1;
  for (u64 r = 0; r < n; r++) { x = 1; u32 s = 12345; for (int i = 0; i < 1000; i++) { s = s * 1103515245 + 12345; x = fns[s >> 29](x); } __asm__ volatile("" : "+r"(x)); }
  return x;
}
static NOINL u64 k_strings(u64 n) {                   // op = hash table insert of 256 short strings + qsort (libc-like mix)
  static char str[256][16]; static char *p[256]; u64 h = 0;
  extern int cmpstr(const void *, const void *);
  for (u64 r = 0; r < n; r++) {
    u32 s = 7; for (int i = 0; i < 256; i++) { s = s * 1664525 + 1013904223; snprintf(str[i], 16, "k%08x", s); p[i] = str[i]; }
    qsort(p, 256, sizeof *p, cmpstr); h = 5381; for (int i = 0; i < 256; i++) for (char *c = p[i]; *c; c++) h = h * 33 + (u8)*c;
  }
  return h;
}
int cmpstr(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// n-body, 5 bodies, 100 steps per op; T = double (SSE2) or long double (x87)
static const double bodies[5][7] = {
{0,0,0,0,0,0,39.47841760435743},
{4.84143144246472090e+00,-1.16032004402742839e+00,-1.03622044471123109e-01,6.06326392995832e-01,2.81198684491626e+00,-2.52183616598876e-02,3.769367487038949e-02},
{8.34336671824457987e+00,4.12479856412430479e+00,-4.03523417114321381e-01,-1.01077434617879e+00,1.82566237123041e+00,8.41576137658415e-03,1.128632613196877e-02},
{1.28943695621391310e+01,-1.51111514016986312e+01,-2.23307578892655734e-01,1.08279100644154e+00,8.68713018169608e-01,-1.08326374013636e-02,1.7237240570597e-03},
{1.53796971148509165e+01,-2.59193146099879641e+01,1.79258772950371181e-01,9.79090732243898e-01,5.94698998647676e-01,-3.47559555078104e-02,2.03368686992463e-03}};
#define NBODY(NAME, T, SQRT) static NOINL u64 NAME(u64 n) { T b[5][7]; T e = 0; \
  for (u64 r = 0; r < n; r++) { for (int i = 0; i < 5; i++) for (int j = 0; j < 7; j++) b[i][j] = bodies[i][j]; \
    for (int s = 0; s < 100; s++) { \
      for (int i = 0; i < 5; i++) for (int j = i + 1; j < 5; j++) { T dx=b[i][0]-b[j][0],dy=b[i][1]-b[j][1],dz=b[i][2]-b[j][2]; T d2=dx*dx+dy*dy+dz*dz; T m=(T)0.01/(d2*SQRT(d2)); \
        b[i][3]-=dx*b[j][6]*m; b[i][4]-=dy*b[j][6]*m; b[i][5]-=dz*b[j][6]*m; b[j][3]+=dx*b[i][6]*m; b[j][4]+=dy*b[i][6]*m; b[j][5]+=dz*b[i][6]*m; } \
      for (int i = 0; i < 5; i++) { b[i][0]+=(T)0.01*b[i][3]; b[i][1]+=(T)0.01*b[i][4]; b[i][2]+=(T)0.01*b[i][5]; } } \
    e = b[0][0] + b[1][1] + b[2][2] + b[3][3] + b[4][4]; } \
  double d = (double)e; u64 v; memcpy(&v, &d, 8); return v; }
static inline double sq_sse(double x) { double r; __asm__("sqrtsd %1,%0" : "=x"(r) : "x"(x)); return r; }
static inline long double sq_87(long double x) { __asm__("fsqrt" : "+t"(x)); return x; }
NBODY(k_nbody_sse2, double, sq_sse)
NBODY(k_nbody_x87, long double, sq_87)
static float va[4096] __attribute__((aligned(16))), vb[4096] __attribute__((aligned(16)));
typedef float v4 __attribute__((vector_size(16))); typedef u32 v4u __attribute__((vector_size(16)));
static NOINL u64 k_sse_vec(u64 n) {                   // op = 4096-element packed-single axpy + packed-integer mix
  u64 out = 0;
  for (u64 r = 0; r < n; r++) {
    for (int i = 0; i < 4096; i++) { va[i] = i; vb[i] = 4096 - i; }
    v4 k = {1.5f, 2.5f, 3.5f, 4.5f}; v4u h = {1, 2, 3, 4};
    for (int q = 0; q < 4; q++) for (int i = 0; i < 4096; i += 4) { v4 *a = (v4 *)(va + i), *b = (v4 *)(vb + i); *a = *a * k + *b; v4u x; memcpy(&x, a, 16); h = (h << 5) + h; h ^= x; }
    out = ((u64)h[0] << 32 | h[1]) ^ ((u64)h[2] << 32 | h[3]);
  }
  return out;
}

// ---- system kernels ------------------------------------------------------------------------------
static NOINL u64 k_getpid(u64 n) { for (u64 r = 0; r < n; r++) syscall(SYS_getppid); return 0; }
static NOINL u64 k_clock(u64 n) { for (u64 r = 0; r < n; r++) now(); return 0; }
static NOINL u64 k_rdtsc(u64 n) { u64 s = 0; for (u64 r = 0; r < n; r++) s += tsc(); __asm__ volatile("" :: "r"(s)); return 0; }
static NOINL u64 k_cpuid(u64 n) { for (u64 r = 0; r < n; r++) { u32 a = 0, b, c = 0, d; __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d)); } return 0; }
static NOINL u64 k_pagefault(u64 n) {                 // op = one anonymous page touched (4 MiB mapped, touched, unmapped)
  for (u64 done = 0; done < n; done += 1024) {
    u8 *p = mmap(0, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(p, 4 << 20, MADV_NOHUGEPAGE);
    for (u32 i = 0; i < 4u << 20; i += 4096) p[i] = 1;
    munmap(p, 4 << 20);
  }
  return 0;
}
static NOINL u64 k_mprotect(u64 n) {                  // op = mprotect RO, mprotect RW, one write (TLB invalidation path)
  u8 *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); p[0] = 1;
  for (u64 r = 0; r < n; r++) { mprotect(p, 4096, PROT_READ); mprotect(p, 4096, PROT_READ | PROT_WRITE); ((volatile u8 *)p)[0]++; }
  munmap(p, 4096); return 0;
}
static void oncpu(int c) { cpu_set_t s; CPU_ZERO(&s); CPU_SET(c, &s); sched_setaffinity(0, sizeof s, &s); }
static void onecpu(int on) { cpu_set_t s; CPU_ZERO(&s); if (on) CPU_SET(0, &s); else for (int i = 0; i < 64; i++) CPU_SET(i, &s); sched_setaffinity(0, sizeof s, &s); }
static NOINL u64 k_ctxsw(u64 n) {                     // op = one round trip over two pipes, both processes on CPU 0
  int a[2], b[2]; char c = 0; if (pipe(a) || pipe(b)) return 0; onecpu(1);
  pid_t pid = fork();
  if (!pid) { for (u64 r = 0; r < n; r++) if (read(a[0], &c, 1) != 1 || write(b[1], &c, 1) != 1) _exit(1); _exit(0); }
  for (u64 r = 0; r < n; r++) if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1) break;
  waitpid(pid, 0, 0); close(a[0]); close(a[1]); close(b[0]); close(b[1]); onecpu(0); return 0;
}
static NOINL u64 k_fork(u64 n) { for (u64 r = 0; r < n; r++) { pid_t p = fork(); if (!p) _exit(0); waitpid(p, 0, 0); } return 0; }
static NOINL u64 k_forkexec(u64 n) { for (u64 r = 0; r < n; r++) { pid_t p = vfork(); if (!p) { char *av[] = {selfpath, (char *)"nop", 0}; execv(selfpath, av); _exit(9); } int st; waitpid(p, &st, 0); if (st) { printf("exec failed %d\n", st); return 0; } } return 0; }
static void onsig(int s) { (void)s; }
static NOINL u64 k_signal(u64 n) { signal(SIGUSR1, onsig); for (u64 r = 0; r < n; r++) raise(SIGUSR1); return 0; }

static volatile u8 *segp; static void onsegv(int s, siginfo_t *i, void *u) { (void)s; (void)i; (void)u; mprotect((void *)segp, 4096, PROT_READ | PROT_WRITE); }
static NOINL u64 k_segv(u64 n) {                      // op = fault to a user handler, mprotect there, return, mprotect back
  struct sigaction sa; memset(&sa, 0, sizeof sa); sa.sa_sigaction = onsegv; sa.sa_flags = SA_SIGINFO; sigaction(SIGSEGV, &sa, 0);
  segp = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (u64 r = 0; r < n; r++) { segp[0] = 1; mprotect((void *)segp, 4096, PROT_NONE); }
  munmap((void *)segp, 4096); signal(SIGSEGV, SIG_DFL); return 0;
}
static NOINL u64 k_atomic(u64 n) { static u64 v; for (u64 r = 0; r < n; r++) __atomic_add_fetch(&v, 1, __ATOMIC_SEQ_CST); return 0; }
static NOINL u64 k_divs(u64 n) { u64 a = 0; for (u64 r = 0; r < n; r++) { u64 x = 0xfedcba9876543210ull; a = 0; for (int i = 1; i < 100; i++) { u64 d = i * 977; a += x / d + x % d; __asm__ volatile("" : "+r"(x)); } } return a; }

// self-modifying code; the emitted function is: mov $imm32,%eax ; ret
static u8 *jit; static void need_jit(void) { if (!jit) jit = mmap(0, 1 << 20, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
typedef u32 (*jfn)(void);
static void emit(u8 *p, u32 v) { p[0] = 0xb8; memcpy(p + 1, &v, 4); p[5] = 0xc3; }
static NOINL u64 k_smc_patch(u64 n) {                 // op = patch 1 instruction in place, call it (worst case)
  need_jit(); u32 bad = 0; emit(jit, 0);
  for (u64 r = 0; r < n; r++) { *(volatile u32 *)(jit + 1) = (u32)r; bad += ((jfn)jit)() != (u32)r; }
  return bad;
}
static NOINL u64 k_smc_jit(u64 n) {                   // op = one fresh 64-byte function emitted; 64 emitted, then each run 16 times
  need_jit(); u32 bad = 0;
  for (u64 r = 0; r < n; r += 64) {
    u8 *base = jit + 4096 + (r / 64 % 64) * 4096;
    for (int i = 0; i < 64; i++) emit(base + i * 64, (u32)(r + i));
    for (int k = 0; k < 16; k++) for (int i = 0; i < 64; i++) bad += ((jfn)(base + i * 64))() != (u32)(r + i);
  }
  return bad;
}
static NOINL u64 k_smc_data(u64 n) {                  // op = write data on the page that holds hot code, call the code
  need_jit(); emit(jit, 5); u64 s = 0;
  for (u64 r = 0; r < n; r++) { *(volatile u32 *)(jit + 2048) = (u32)r; s += ((jfn)jit)(); }
  return s == n * 5 ? 1 : 0;
}
struct mt { u64 n, v; };
static void *mt_fn(void *p) { struct mt *m = p; m->v = k_alu(m->n); return 0; }
static NOINL u64 k_alu_2thr(u64 n) { pthread_t t; struct mt m = {n, 0}; pthread_create(&t, 0, mt_fn, &m); u64 v = k_alu(n); pthread_join(t, 0); return v ^ m.v; }
static volatile u64 flip;
static u64 flip_n;
static void *flip_fn(void *p) { (void)p; oncpu(1); for (u64 i = 0; i < flip_n; i++) { while (flip != 2 * i + 1) __asm__ volatile("pause"); flip = 2 * i + 2; } return 0; }
static NOINL u64 k_pingpong2(u64 n) {                 // op = cache-line round trip between two CPUs (skipped on one)
  if (sysconf(_SC_NPROCESSORS_ONLN) < 2) return 0;
  pthread_t t; flip = 0; flip_n = n; pthread_create(&t, 0, flip_fn, 0); oncpu(0);
  for (u64 i = 0; i < n; i++) { flip = 2 * i + 1; while (flip != 2 * i + 2) __asm__ volatile("pause"); }
  pthread_join(t, 0); onecpu(0); return 0;
}
static NOINL u64 k_outb80(u64 n) { for (u64 r = 0; r < n; r++) outb(0, 0x80); return 0; }        // op = one port write (an exit)
static NOINL u64 k_inbuart(u64 n) { for (u64 r = 0; r < n; r++) inb(0x3fd); return 0; }         // op = one UART LSR read (an exit)
static NOINL u64 k_usleep(u64 n) { for (u64 r = 0; r < n; r++) { struct timespec t = {0, 100000}; nanosleep(&t, 0); } return 0; }  // op = 100 us sleep: timer latency

static struct { const char *name; u64 (*fn)(u64); u64 start; int flags; const char *unit; } T[] = {
  {"alu", k_alu, 16, 0, "1000 rounds"}, {"sieve", k_sieve, 1, 0, "sieve 65536"}, {"sha256", k_sha256, 1, 0, "64 KiB"}, {"div", k_divs, 16, 0, "99 div64"},
  {"interp", k_interp, 4, 0, "7000 bytecodes"}, {"fib", k_fib, 4, 0, "fib(20)=21891 calls"}, {"icall", k_icall, 16, 0, "1000 indirect calls"}, {"strings", k_strings, 1, 0, "256 snprintf+qsort"},
  {"nbody_sse2", k_nbody_sse2, 4, 0, "100 steps"}, {"nbody_x87", k_nbody_x87, 4, 0, "100 steps"}, {"sse_vec", k_sse_vec, 2, 0, "16384 elem"},
  {"memcpy64m", k_memcpy, 1, 0, "64 MiB"}, {"memset64m", k_memset, 1, 0, "64 MiB"}, {"rep_movsb", k_repmovsb, 1, 0, "64 MiB"}, {"rep_stosq", k_repstosq, 1, 0, "64 MiB"}, {"readsum64m", k_readsum, 1, 0, "64 MiB"},
  {"chase16k", k_chase16k, 64, 0, "1000 loads"}, {"chase1m", k_chase1m, 64, 0, "1000 loads"}, {"chase64m", k_chase64m, 64, 0, "1000 loads"}, {"atomic", k_atomic, 1024, 0, "lock xadd"},
  {"rdtsc", k_rdtsc, 1024, 0, "rdtsc"}, {"cpuid", k_cpuid, 64, 0, "cpuid"},
  {"syscall", k_getpid, 1024, 0, "getppid"}, {"clock", k_clock, 1024, 0, "clock_gettime"}, {"pagefault", k_pagefault, 1024, 0, "page touched"}, {"mprotect", k_mprotect, 64, 0, "RO+RW+write"},
  {"ctxsw", k_ctxsw, 64, 0, "pipe round trip"}, {"fork", k_fork, 4, 0, "fork+exit+wait"}, {"forkexec", k_forkexec, 4, 0, "vfork+exec+exit"}, {"signal", k_signal, 64, 0, "raise+handler"}, {"segv", k_segv, 64, 0, "fault+handler+2 mprotect"},
  {"smc_patch", k_smc_patch, 64, 0, "patch+call"}, {"smc_jit", k_smc_jit, 64, 0, "emit, 16 calls"}, {"smc_data", k_smc_data, 64, 0, "data write+call, one page"},
  {"alu_2thr", k_alu_2thr, 16, 0, "2x1000 rounds"}, {"pingpong2", k_pingpong2, 64, 2, "line round trip"}, {"sleep100us", k_usleep, 8, 0, "nanosleep 100us"},
  {"outb80", k_outb80, 64, 1, "outb 0x80"}, {"inb3fd", k_inbuart, 64, 1, "inb 0x3fd"},
};
static int cmpd(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }
static void run_cpu(int argc, char **argv) {
  for (u32 t = 0; t < sizeof T / sizeof *T; t++) {
    int want = argc == 0; for (int i = 0; i < argc; i++) if (!strcmp(argv[i], T[t].name)) want = 1;
    if (!want) continue;
    if (T[t].flags & 1) { if (iopl(3)) { continue; } }
    if ((T[t].flags & 2) && sysconf(_SC_NPROCESSORS_ONLN) < 2) continue;
    u64 n = T[t].start, chk = 0, e = 0;
    for (;;) {                                        // calibrate: grow n until one run takes about a tenth of the target
      u64 a = now(); chk = T[t].fn(n); e = now() - a;
      if (e * 10 >= target_ns || n > (1ull << 40)) break;
      u64 f = e ? target_ns / 8 / e + 1 : 16; n *= f > 16 ? 16 : f < 2 ? 2 : f;
    }
    if (e < target_ns) n = n * (double)target_ns / (e ? e : 1) + 1;
    double ns[16], cy[16]; int R = reps > 16 ? 16 : reps;
    for (int r = 0; r < R; r++) { u64 a = now(), c = tsc(); chk = T[t].fn(n); u64 c2 = tsc(), b = now(); ns[r] = (double)(b - a) / n; cy[r] = (double)(c2 - c) / n; }
    free_big(); qsort(ns, R, sizeof *ns, cmpd); qsort(cy, R, sizeof *cy, cmpd);
    printf("GB %-11s %14.2f %14.2f %14.2f %16.1f %016llx  # %s\n", T[t].name, ns[R / 2], ns[0], ns[R - 1], cy[R / 2], (unsigned long long)chk, T[t].unit); fflush(stdout);
  }
}
static u64 blksize(int fd) { u64 s = 0; if (ioctl(fd, BLKGETSIZE64, &s)) { struct stat st; fstat(fd, &st); s = st.st_size; } return s; }
static void run_disk(const char *dev, int wr) {
  int fd = open(dev, (wr ? O_RDWR : O_RDONLY) | O_DIRECT); if (fd < 0) { perror(dev); return; }
  u64 size = blksize(fd), lim = size > (256ull << 20) ? 256ull << 20 : size; u8 *buf; if (posix_memalign((void **)&buf, 4096, 1 << 20)) return;
  printf("GB disk %s size %llu MiB\n", dev, (unsigned long long)(size >> 20));
  for (int pass = 0; pass < reps; pass++) {
    u64 a = now(), d = 0; while (d < lim && now() - a < 5000000000ull) { ssize_t k = pread(fd, buf, 1 << 20, d); if (k <= 0) { perror("read"); return; } d += k; }
    u64 e = now() - a; printf("GB seqread  %s %9.1f MB/s (%llu MiB)\n", dev, d * 1e3 / e, (unsigned long long)(d >> 20));
    u64 x = 99 + pass, n = 0; a = now(); while (now() - a < 3000000000ull) { x = x * 6364136223846793005ull + 1442695040888963407ull; u64 o = ((x >> 20) % (size / 4096)) * 4096; if (pread(fd, buf, 4096, o) != 4096) { perror("rr"); return; } n++; }
    e = now() - a; printf("GB rand4kr  %s %9.0f IOPS (%.1f us)\n", dev, n * 1e9 / e, e / 1e3 / n);
    if (!wr) continue;
    memset(buf, 0x5a + pass, 1 << 20); a = now(); d = 0; while (d < lim && now() - a < 5000000000ull) { ssize_t k = pwrite(fd, buf, 1 << 20, d); if (k <= 0) { perror("write"); return; } d += k; }
    e = now() - a; printf("GB seqwrite %s %9.1f MB/s (%llu MiB)\n", dev, d * 1e3 / e, (unsigned long long)(d >> 20));
    n = 0; a = now(); while (now() - a < 3000000000ull) { x = x * 6364136223846793005ull + 1442695040888963407ull; u64 o = ((x >> 20) % (size / 4096)) * 4096; if (pwrite(fd, buf, 4096, o) != 4096) { perror("rw"); return; } n++; }
    e = now() - a; printf("GB rand4kw  %s %9.0f IOPS (%.1f us)\n", dev, n * 1e9 / e, e / 1e3 / n);
  }
  close(fd); free(buf); fflush(stdout);
}
static void run_tty(const char *dev, u64 bytes) {
  int fd = open(dev, O_WRONLY | O_NOCTTY); if (fd < 0) { perror(dev); return; }
  char line[80]; for (int i = 0; i < 79; i++) line[i] = 'a' + i % 26; line[79] = '\n';
  u64 a = now(), d = 0; while (d < bytes) { ssize_t k = write(fd, line, 80); if (k <= 0) { perror("write"); return; } d += k; }
  tcdrain(fd); u64 e = now() - a; close(fd);
  printf("\nGB tty %s %llu bytes %.3f s %.0f bytes/s\n", dev, (unsigned long long)d, e / 1e9, d * 1e9 / e); fflush(stdout);
}
static void run_fb(void) {
  int fd = open("/dev/fb0", O_RDWR);
  if (fd >= 0) {
    struct fb_fix_screeninfo f; struct fb_var_screeninfo v; ioctl(fd, FBIOGET_FSCREENINFO, &f); ioctl(fd, FBIOGET_VSCREENINFO, &v);
    u64 len = (u64)f.line_length * v.yres; u8 *p = mmap(0, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) perror("fb mmap"); else {
      for (int m = 0; m < 2; m++) { u64 a = now(), n = 0; while (now() - a < 2000000000ull) { if (m) { void *d = p; u64 c = len / 8; __asm__ volatile("rep stosq" : "+D"(d), "+c"(c) : "a"(n) : "memory"); } else memset(p, n, len); n++; }
        u64 e = now() - a; printf("GB fb %s %ux%u %u bpp %s %.1f MB/s %.1f frames/s\n", f.id, v.xres, v.yres, v.bits_per_pixel, m ? "stosq" : "memset", n * len * 1e3 / e, n * 1e9 / e); }
    }
    close(fd);
  } else printf("GB fb none\n");
  fd = open("/dev/mem", O_RDWR); if (fd < 0) return;
  u8 *p = mmap(0, 32768, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0xb8000); if (p == MAP_FAILED) { perror("mem"); return; }
  for (int m = 0; m < 2; m++) { u64 a = now(), n = 0; while (now() - a < 1000000000ull) { if (m) for (int i = 0; i < 32768; i += 2) (void)*(volatile uint16_t *)(p + i); else for (int i = 0; i < 32768; i += 2) *(volatile uint16_t *)(p + i) = 0x0720; n++; }
    u64 e = now() - a; printf("GB vga 0xb8000 16-bit %s %.1f MB/s (%.0f ns each)\n", m ? "reads" : "writes", n * 32768e3 / e, e / 16384.0 / n); }
}
static void run(int argc, char **argv) {
  if (argc == 0 || !strcmp(argv[0], "cpu")) run_cpu(argc ? argc - 1 : 0, argv + 1);
  else if (!strcmp(argv[0], "disk") && argc > 1) run_disk(argv[1], argc > 2 && !strcmp(argv[2], "write"));
  else if (!strcmp(argv[0], "tty") && argc > 2) run_tty(argv[1], strtoull(argv[2], 0, 0));
  else if (!strcmp(argv[0], "fb")) run_fb();
  else if (!strcmp(argv[0], "spin") && argc > 1) { u64 e = now() + 1000000000ull * atoi(argv[1]); while (now() < e) k_alu(100); }
  else run_cpu(argc, argv);
}
int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "nop")) return 0;
  setvbuf(stdout, 0, _IOLBF, 0);
  for (u32 i = 0; i < sizeof shabuf; i++) shabuf[i] = i * 7 + (i >> 8);
  snprintf(selfpath, sizeof selfpath, "%s", getpid() == 1 ? "/init" : "/proc/self/exe");
  const char *e; if ((e = getenv("GB_MS"))) target_ns = strtoull(e, 0, 0) * 1000000ull; if ((e = getenv("GB_REPS"))) reps = atoi(e); if (reps < 1) reps = 1;
  if (getpid() != 1) { run(argc - 1, argv + 1); return 0; }
  mkdir("/proc", 0755); mkdir("/sys", 0755); mkdir("/dev", 0755);
  mount("p", "/proc", "proc", 0, 0); mount("s", "/sys", "sysfs", 0, 0); mount("d", "/dev", "devtmpfs", 0, 0);
  printf("GUESTBENCH-START cpus=%ld\n", sysconf(_SC_NPROCESSORS_ONLN));
  char list[512], *av[32]; int ac = 0; snprintf(list, sizeof list, "%s", (e = getenv("GB_RUN")) ? e : "cpu");
  for (char *p = strtok(list, ","); p && ac < 31; p = strtok(0, ",")) av[ac++] = p;
  av[ac] = 0; run(ac, av);
  printf("GUESTBENCH-END\n"); fflush(stdout); tcdrain(1); sync();
  e = getenv("GB_END"); if (!e) e = "poweroff";
  if (!strcmp(e, "reboot")) reboot(RB_AUTOBOOT); else if (!strcmp(e, "halt")) reboot(RB_HALT_SYSTEM); else reboot(RB_POWER_OFF);
  for (;;) pause();
}
