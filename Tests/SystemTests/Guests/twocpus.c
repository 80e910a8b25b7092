// SPDX-License-Identifier: Apache-2.0
//
// What a debugger looks at, loaded by loader.asm: it starts the second vCPU, and both count for ever,
// in 64-bit mode, each by functions of its own.

__asm__(
    ".section .text.start, \"ax\"\n"
    ".code32\n"
    ".globl start\n"
    "start:\n"
    "  movl $tables + 4096 + 3, tables\n"          // PML4: one entry
    "  movl $tables + 8192 + 3, tables + 4096\n"   // PDPT: one entry
    "  movl $0x83, tables + 8192\n"                // PD: 2 MiB from 0
    // The second vCPU starts at 8000h: INIT and the start-up message, to all others.
    "  movl $trampoline, %esi\n  movl $0x8000, %edi\n"
    "  movl $trampoline_end - trampoline, %ecx\n  cld\n  rep movsb\n"
    "  movl $0x000001FF, 0xFEE000F0\n"
    "  movl $0x000C4500, 0xFEE00300\n"
    "  movl $1000000, %ecx\n"
    "1: pause\n  loop 1b\n"
    "  movl $0x000C4608, 0xFEE00300\n"
    "  lgdt gdtr\n"
    "  movl $first_main, %edi\n  movl $first_stack + 4096, %esi\n"
    // To 64-bit mode, and on at EDI with the stack ESI.
    "enter:\n"
    "  movl %cr4, %eax\n  orl $0x20, %eax\n  movl %eax, %cr4\n"
    "  movl $tables, %eax\n  movl %eax, %cr3\n"
    "  movl $0xC0000080, %ecx\n  rdmsr\n  orl $0x100, %eax\n  wrmsr\n"
    "  movl %cr0, %eax\n  orl $0x80000000, %eax\n  movl %eax, %cr0\n"
    "  ljmp $8, $long_mode\n"
    "second:\n"
    "  movl $0x10, %eax\n  movl %eax, %ds\n  movl %eax, %es\n  movl %eax, %ss\n"
    "  movl $second_main, %edi\n  movl $second_stack + 4096, %esi\n"
    "  jmp enter\n"
    ".code64\n"
    "long_mode:\n"
    "  movl $0x10, %eax\n  movl %eax, %ds\n  movl %eax, %es\n  movl %eax, %ss\n"
    "  xorl %ebp, %ebp\n"
    // A function begins with a return address on its stack.
    "  leaq -264(%rsi), %rsp\n"
    "  jmp *%rdi\n"
    ".code16\n"
    "trampoline:\n"
    "  cli\n"
    "  xorw %ax, %ax\n  movw %ax, %ds\n"
    "  lgdtl 0x8000 + trampoline_gdtr - trampoline\n"
    "  movl %cr0, %eax\n  orl $1, %eax\n  movl %eax, %cr0\n"
    "  ljmpl $0x18, $second\n"
    "trampoline_gdtr: .word 47\n .long gdt\n"
    "trampoline_end:\n"
    ".align 8\n"
    // 64-bit code, data, 32-bit code, and a user's code and data.
    "gdt: .quad 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF, 0x00CF9A000000FFFF\n"
    "     .quad 0x00AFFA000000FFFF, 0x00CFF2000000FFFF\n"
    "gdtr: .word 47\n .long gdt\n"
    ".code64\n"
    ".text\n");

unsigned char first_stack[4096] __attribute__((aligned(16)));
unsigned char second_stack[4096] __attribute__((aligned(16)));
unsigned char tables[3 * 4096] __attribute__((aligned(4096)));
volatile unsigned long first_count, first_watched;
volatile unsigned long second_count, second_watched;

__attribute__((noinline)) unsigned long first_inner(unsigned long value) {
  first_count = first_count + 1;
  if (first_count % 64 == 0) first_watched = first_watched + value;
  return first_count;
}

__attribute__((noinline)) unsigned long first_outer(unsigned long value) {
  return first_inner(value + 1) + 1;
}

__attribute__((noinline)) unsigned long second_inner(unsigned long value) {
  second_count = second_count + 1;
  if (second_count % 32 == 0) second_watched = second_watched + value;
  return second_count;
}

__attribute__((noinline)) unsigned long second_outer(unsigned long value) {
  return second_inner(value + 2) + 1;
}

__attribute__((noreturn, used)) void first_main(void) {
  for (;;) first_outer(5);
}

__attribute__((noreturn, used)) void second_main(void) {
  for (;;) second_outer(7);
}
