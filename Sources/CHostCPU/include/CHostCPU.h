// SPDX-License-Identifier: Apache-2.0
/* Instructions of the host's processor that Swift has no name for. */
#ifndef BULKHEAD_CHOSTCPU_H
#define BULKHEAD_CHOSTCPU_H

#include <stdint.h>

/* The time-stamp counter. */
static inline uint64_t bh_rdtsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

/* Two words, the low one first. */
struct bh_pair {
  uint64_t low, high;
};

/* LOCK CMPXCHG16B: writes `value` where `expected` is, and returns what was there. */
static inline struct bh_pair bh_cmpxchg16b(void *memory, struct bh_pair expected,
                                           struct bh_pair value) {
  __asm__ volatile("lock cmpxchg16b %0"
                   : "+m"(*(uint64_t(*)[2])memory), "+a"(expected.low), "+d"(expected.high)
                   : "b"(value.low), "c"(value.high)
                   : "cc", "memory");
  return expected;
}

/* LOCK CMPXCHG of 1, 2, 4 or 8 bytes; nonzero when `value` was written, else `*expected` gets
 * what is there. */
static inline int bh_compare_exchange(void *memory, uint64_t *expected, uint64_t value, int size) {
  uint8_t equal;
  switch (size) {
    case 1:
      __asm__ volatile("lock cmpxchgb %b3, %1\n\tsete %0"
                       : "=q"(equal), "+m"(*(uint8_t *)memory), "+a"(*expected)
                       : "q"(value) : "cc", "memory");
      break;
    case 2:
      __asm__ volatile("lock cmpxchgw %w3, %1\n\tsete %0"
                       : "=q"(equal), "+m"(*(uint16_t *)memory), "+a"(*expected)
                       : "r"(value) : "cc", "memory");
      break;
    case 4:
      __asm__ volatile("lock cmpxchgl %k3, %1\n\tsete %0"
                       : "=q"(equal), "+m"(*(uint32_t *)memory), "+a"(*expected)
                       : "r"(value) : "cc", "memory");
      break;
    default:
      __asm__ volatile("lock cmpxchgq %3, %1\n\tsete %0"
                       : "=q"(equal), "+m"(*(uint64_t *)memory), "+a"(*expected)
                       : "r"(value) : "cc", "memory");
  }
  return equal;
}

/* What CPUID answers. */
struct bh_cpuid {
  uint32_t eax, ebx, ecx, edx;
};

static inline struct bh_cpuid bh_cpuid(uint32_t leaf, uint32_t subleaf) {
  struct bh_cpuid r;
  __asm__ volatile("cpuid"
                   : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                   : "a"(leaf), "c"(subleaf));
  return r;
}

/* What a vector instruction works on: xmm0 (first operand), xmm1 (second), xmm2 where xmm0 is an
 * implicit operand, and the general registers that some read or write. */
struct bh_vector_frame {
  uint64_t first[2];
  uint64_t second[2];
  uint64_t third[2];
  uint64_t rax, rcx, rdx, flags;
  uint32_t mxcsr;
  uint32_t unused;
};

/* Executes `prefix 0F opcode` with a register operand: xmm0 or eax, and xmm1 or ecx. `map` is 0
 * for 0F, 1 for 0F 38, 2 for the same as 0 with REX.W; `prefix` is 0 for none, 1 for 66, 2 for
 * F3, 3 for F2. The caller knows that the host has the instruction. */
void bh_vector(struct bh_vector_frame *frame, unsigned map, unsigned prefix, unsigned opcode);

/* The same for MMX: mm0 and mm1, in the low words of `first` and `second`. */
void bh_mmx(struct bh_vector_frame *frame, unsigned map, unsigned opcode);

/* Instructions with an immediate byte. */
enum bh_immediate {
  BH_PSHUFD, BH_PSHUFHW, BH_PSHUFLW, BH_CMPPS, BH_CMPPD, BH_CMPSS, BH_CMPSD, BH_SHUFPS, BH_SHUFPD,
  BH_ROUNDPS, BH_ROUNDPD, BH_ROUNDSS, BH_ROUNDSD, BH_BLENDPS, BH_BLENDPD, BH_PBLENDW, BH_PALIGNR,
  BH_DPPS, BH_DPPD, BH_MPSADBW, BH_PCLMULQDQ, BH_PCMPESTRM, BH_PCMPESTRI, BH_PCMPISTRM,
  BH_PCMPISTRI, BH_AESKEYGENASSIST, BH_SHA1RNDS4, BH_INSERTPS,
  BH_MMX_PSHUFW, BH_MMX_PALIGNR, /* on mm0 and mm1 */
};
void bh_vector_immediate(struct bh_vector_frame *frame, enum bh_immediate which,
                         unsigned immediate);
void bh_mmx_immediate(struct bh_vector_frame *frame, enum bh_immediate which, unsigned immediate);

/* SHA256RNDS2 xmm2, xmm1 with xmm0: `third` is the first operand, `first` the implicit one. */
void bh_sha256rnds2(struct bh_vector_frame *frame);

/* Executes one x87 instruction on a state in FXSAVE's format, aligned to 16 bytes: with a
 * register operand (`modrm` C0h to FFh), or on `memory` (`modrm` 0 to 38h: the reg field alone).
 * The caller knows that it exists, and that no exception is pending in the state. */
void bh_x87(void *state, unsigned opcode, unsigned modrm, void *memory, uint64_t *flags);

/* Memory for code: a sealed size, mapped to be written and to be executed; zero when it worked. */
int bh_code_buffer(uint64_t size, void **writable, void **executable);

/* Calls translated code by its common entry. */
static inline uint64_t bh_enter_translated(void *entry, void *registers, uint64_t code) {
  return ((uint64_t(*)(void *, uint64_t))entry)(registers, code);
}

#endif
