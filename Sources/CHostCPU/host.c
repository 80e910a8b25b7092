// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CHostCPU.h"

#include <sys/mman.h>
#include <unistd.h>

/* Tables of single instructions, each with a return, eight bytes apart: the instruction's bytes
 * are its opcode and a fixed ModRM of C1h (register 0, register 1). */
__asm__(
    ".text\n"
    ".macro bh_rows name, bytes:vararg\n"
    ".balign 16\n\\name:\n"
    ".set bh_i, 0\n"
    ".rept 256\n"
    ".byte \\bytes\n.byte bh_i, 0xC1, 0xC3\n.balign 8\n"
    ".set bh_i, bh_i + 1\n"
    ".endr\n"
    ".endm\n"
    "bh_rows bh_0f_none, 0x0F\n"
    "bh_rows bh_0f_66, 0x66, 0x0F\n"
    "bh_rows bh_0f_f3, 0xF3, 0x0F\n"
    "bh_rows bh_0f_f2, 0xF2, 0x0F\n"
    "bh_rows bh_38_none, 0x0F, 0x38\n"
    "bh_rows bh_38_66, 0x66, 0x0F, 0x38\n"
    "bh_rows bh_wide_f3, 0xF3, 0x48, 0x0F\n"
    "bh_rows bh_wide_f2, 0xF2, 0x48, 0x0F\n"
    ".macro bh_immediates name, bytes:vararg\n"
    ".balign 16\n\\name:\n"
    ".set bh_i, 0\n"
    ".rept 256\n"
    ".byte \\bytes\n.byte 0xC1, bh_i, 0xC3\n.balign 8\n"
    ".set bh_i, bh_i + 1\n"
    ".endr\n"
    ".endm\n"
    "bh_immediates bh_pshufd, 0x66, 0x0F, 0x70\n"
    "bh_immediates bh_pshufhw, 0xF3, 0x0F, 0x70\n"
    "bh_immediates bh_pshuflw, 0xF2, 0x0F, 0x70\n"
    "bh_immediates bh_pshufw, 0x0F, 0x70\n"
    "bh_immediates bh_cmpps, 0x0F, 0xC2\n"
    "bh_immediates bh_cmppd, 0x66, 0x0F, 0xC2\n"
    "bh_immediates bh_cmpss, 0xF3, 0x0F, 0xC2\n"
    "bh_immediates bh_cmpsd, 0xF2, 0x0F, 0xC2\n"
    "bh_immediates bh_shufps, 0x0F, 0xC6\n"
    "bh_immediates bh_shufpd, 0x66, 0x0F, 0xC6\n"
    "bh_immediates bh_roundps, 0x66, 0x0F, 0x3A, 0x08\n"
    "bh_immediates bh_roundpd, 0x66, 0x0F, 0x3A, 0x09\n"
    "bh_immediates bh_roundss, 0x66, 0x0F, 0x3A, 0x0A\n"
    "bh_immediates bh_roundsd, 0x66, 0x0F, 0x3A, 0x0B\n"
    "bh_immediates bh_blendps, 0x66, 0x0F, 0x3A, 0x0C\n"
    "bh_immediates bh_blendpd, 0x66, 0x0F, 0x3A, 0x0D\n"
    "bh_immediates bh_pblendw, 0x66, 0x0F, 0x3A, 0x0E\n"
    "bh_immediates bh_palignr, 0x66, 0x0F, 0x3A, 0x0F\n"
    "bh_immediates bh_mmx_palignr, 0x0F, 0x3A, 0x0F\n"
    "bh_immediates bh_insertps, 0x66, 0x0F, 0x3A, 0x21\n"
    "bh_immediates bh_dpps, 0x66, 0x0F, 0x3A, 0x40\n"
    "bh_immediates bh_dppd, 0x66, 0x0F, 0x3A, 0x41\n"
    "bh_immediates bh_mpsadbw, 0x66, 0x0F, 0x3A, 0x42\n"
    "bh_immediates bh_pclmulqdq, 0x66, 0x0F, 0x3A, 0x44\n"
    "bh_immediates bh_pcmpestrm, 0x66, 0x0F, 0x3A, 0x60\n"
    "bh_immediates bh_pcmpestri, 0x66, 0x0F, 0x3A, 0x61\n"
    "bh_immediates bh_pcmpistrm, 0x66, 0x0F, 0x3A, 0x62\n"
    "bh_immediates bh_pcmpistri, 0x66, 0x0F, 0x3A, 0x63\n"
    "bh_immediates bh_aeskeygenassist, 0x66, 0x0F, 0x3A, 0xDF\n"
    "bh_immediates bh_sha1rnds4, 0x0F, 0x3A, 0xCC\n"
    /* x87: D8 to DF with ModRM C0 to FF, and with reg 0 to 7 on memory at rdx. */
    ".balign 16\nbh_x87_registers:\n"
    ".set bh_i, 0\n"
    ".rept 512\n"
    ".byte 0xD8 + (bh_i >> 6), 0xC0 + (bh_i & 63), 0xC3\n.balign 4\n"
    ".set bh_i, bh_i + 1\n"
    ".endr\n"
    ".balign 16\nbh_x87_memory:\n"
    ".set bh_i, 0\n"
    ".rept 64\n"
    ".byte 0xD8 + (bh_i >> 3), (bh_i & 7) << 3 | 2, 0xC3\n.balign 4\n"
    ".set bh_i, bh_i + 1\n"
    ".endr\n"
    ".balign 16\nbh_sha256rnds2_code:\n.byte 0x0F, 0x38, 0xCB, 0xD1, 0xC3\n");

extern const char bh_0f_none[], bh_0f_66[], bh_0f_f3[], bh_0f_f2[], bh_38_none[], bh_38_66[],
    bh_wide_f3[], bh_wide_f2[];
extern const char bh_pshufd[], bh_pshufhw[], bh_pshuflw[], bh_pshufw[], bh_cmpps[], bh_cmppd[],
    bh_cmpss[], bh_cmpsd[], bh_shufps[], bh_shufpd[], bh_roundps[], bh_roundpd[], bh_roundss[],
    bh_roundsd[], bh_blendps[], bh_blendpd[], bh_pblendw[], bh_palignr[], bh_mmx_palignr[],
    bh_insertps[], bh_dpps[], bh_dppd[], bh_mpsadbw[], bh_pclmulqdq[], bh_pcmpestrm[],
    bh_pcmpestri[], bh_pcmpistrm[], bh_pcmpistri[], bh_aeskeygenassist[], bh_sha1rnds4[];
extern const char bh_x87_registers[], bh_x87_memory[], bh_sha256rnds2_code[];

static const char *const rows[3][4] = {
    {bh_0f_none, bh_0f_66, bh_0f_f3, bh_0f_f2},
    {bh_38_none, bh_38_66, bh_38_none, bh_38_none},
    {bh_0f_none, bh_0f_66, bh_wide_f3, bh_wide_f2},
};

static const char *const immediates[] = {
    [BH_PSHUFD] = bh_pshufd,
    [BH_PSHUFHW] = bh_pshufhw,
    [BH_PSHUFLW] = bh_pshuflw,
    [BH_CMPPS] = bh_cmpps,
    [BH_CMPPD] = bh_cmppd,
    [BH_CMPSS] = bh_cmpss,
    [BH_CMPSD] = bh_cmpsd,
    [BH_SHUFPS] = bh_shufps,
    [BH_SHUFPD] = bh_shufpd,
    [BH_ROUNDPS] = bh_roundps,
    [BH_ROUNDPD] = bh_roundpd,
    [BH_ROUNDSS] = bh_roundss,
    [BH_ROUNDSD] = bh_roundsd,
    [BH_BLENDPS] = bh_blendps,
    [BH_BLENDPD] = bh_blendpd,
    [BH_PBLENDW] = bh_pblendw,
    [BH_PALIGNR] = bh_palignr,
    [BH_DPPS] = bh_dpps,
    [BH_DPPD] = bh_dppd,
    [BH_MPSADBW] = bh_mpsadbw,
    [BH_PCLMULQDQ] = bh_pclmulqdq,
    [BH_PCMPESTRM] = bh_pcmpestrm,
    [BH_PCMPESTRI] = bh_pcmpestri,
    [BH_PCMPISTRM] = bh_pcmpistrm,
    [BH_PCMPISTRI] = bh_pcmpistri,
    [BH_AESKEYGENASSIST] = bh_aeskeygenassist,
    [BH_SHA1RNDS4] = bh_sha1rnds4,
    [BH_INSERTPS] = bh_insertps,
    [BH_MMX_PSHUFW] = bh_pshufw,
    [BH_MMX_PALIGNR] = bh_mmx_palignr,
};

static const uint32_t host_mxcsr = 0x1F80;

/* Loads the frame, calls the instruction, stores the frame. */
static void call_vector(struct bh_vector_frame *frame, const char *code) {
  __asm__ volatile(
      "ldmxcsr %[mxcsr]\n\t"
      "movdqu %[first], %%xmm0\n\t"
      "movdqu %[second], %%xmm1\n\t"
      "movdqu %[third], %%xmm2\n\t"
      "mov %[rax], %%rax\n\t"
      "mov %[rcx], %%rcx\n\t"
      "mov %[rdx], %%rdx\n\t"
      "lea -128(%%rsp), %%rsp\n\t"
      "call *%[code]\n\t"
      "pushfq\n\t"
      "pop %[flags]\n\t"
      "lea 128(%%rsp), %%rsp\n\t"
      "mov %%rax, %[rax]\n\t"
      "mov %%rcx, %[rcx]\n\t"
      "movdqu %%xmm0, %[first]\n\t"
      "movdqu %%xmm2, %[third]\n\t"
      "stmxcsr %[mxcsr]\n\t"
      "ldmxcsr %[host]"
      : [first] "+m"(frame->first), [third] "+m"(frame->third), [rax] "+m"(frame->rax),
        [rcx] "+m"(frame->rcx), [flags] "=&r"(frame->flags), [mxcsr] "+m"(frame->mxcsr)
      : [second] "m"(frame->second), [rdx] "m"(frame->rdx), [code] "r"(code),
        [host] "m"(host_mxcsr)
      : "rax", "rcx", "rdx", "xmm0", "xmm1", "xmm2", "cc", "memory");
}

static void call_mmx(struct bh_vector_frame *frame, const char *code) {
  __asm__ volatile(
      "movq %[first], %%mm0\n\t"
      "movq %[second], %%mm1\n\t"
      "xor %%eax, %%eax\n\t"
      "lea -128(%%rsp), %%rsp\n\t"
      "call *%[code]\n\t"
      "lea 128(%%rsp), %%rsp\n\t"
      "mov %%rax, %[rax]\n\t"
      "movq %%mm0, %[first]\n\t"
      "emms"
      : [first] "+m"(frame->first[0]), [rax] "=m"(frame->rax)
      : [second] "m"(frame->second[0]), [code] "r"(code)
      : "rax", "mm0", "mm1", "cc", "memory");
}

void bh_vector(struct bh_vector_frame *frame, unsigned map, unsigned prefix, unsigned opcode) {
  call_vector(frame, rows[map % 3][prefix & 3] + 8 * (opcode & 255));
}

void bh_mmx(struct bh_vector_frame *frame, unsigned map, unsigned opcode) {
  call_mmx(frame, rows[map & 1][0] + 8 * (opcode & 255));
}

void bh_vector_immediate(struct bh_vector_frame *frame, enum bh_immediate which,
                         unsigned immediate) {
  call_vector(frame, immediates[which] + 8 * (immediate & 255));
}

void bh_mmx_immediate(struct bh_vector_frame *frame, enum bh_immediate which,
                      unsigned immediate) {
  call_mmx(frame, immediates[which] + 8 * (immediate & 255));
}

void bh_sha256rnds2(struct bh_vector_frame *frame) { call_vector(frame, bh_sha256rnds2_code); }

void bh_x87(void *state, unsigned opcode, unsigned modrm, void *memory, uint64_t *flags) {
  const char *code = modrm >= 0xC0 ? bh_x87_registers + 4 * ((opcode & 7) << 6 | (modrm & 63))
                                   : bh_x87_memory + 4 * ((opcode & 7) << 3 | (modrm >> 3 & 7));
  uint64_t result = *flags;
  __asm__ volatile(
      "lea -128(%%rsp), %%rsp\n\t"
      "push %[result]\n\t"
      "fxrstor64 (%[state])\n\t"
      "popfq\n\t"
      "call *%[code]\n\t"
      "pushfq\n\t"
      "pop %[result]\n\t"
      "lea 128(%%rsp), %%rsp\n\t"
      "fxsave64 (%[state])\n\t"
      "fninit\n\t"
      "ldmxcsr %[host]"
      : [result] "+&r"(result)
      : [state] "r"(state), [code] "r"(code), "d"(memory), [host] "m"(host_mxcsr)
      : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
        "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  *flags = result;
}

int bh_code_buffer(uint64_t size, void **writable, void **executable) {
  int descriptor = memfd_create("translated", MFD_CLOEXEC);
  if (descriptor < 0) return -1;
  if (ftruncate(descriptor, (off_t)size) != 0) {
    close(descriptor);
    return -1;
  }
  void *first = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  void *second = mmap(0, size, PROT_READ | PROT_EXEC, MAP_SHARED, descriptor, 0);
  close(descriptor);
  if (first == MAP_FAILED || second == MAP_FAILED) {
    if (first != MAP_FAILED) munmap(first, size);
    if (second != MAP_FAILED) munmap(second, size);
    return -1;
  }
  *writable = first;
  *executable = second;
  return 0;
}
