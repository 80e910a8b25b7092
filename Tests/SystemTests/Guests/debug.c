// SPDX-License-Identifier: Apache-2.0
//
// A Multiboot kernel that a debugger looks at: in 64-bit mode, identity-mapped, it counts for
// ever, by a function three calls deep.

__asm__(
    ".section .text.start, \"ax\"\n"
    ".align 4\n"
    ".long 0x1BADB002, 3, -(0x1BADB002 + 3)\n"
    ".code32\n"
    ".globl start\n"
    "start:\n"
    "  movl $stack + 16384, %esp\n"
    "  movl $tables + 4096 + 3, tables\n"          // PML4: one entry
    "  movl $tables + 8192 + 3, tables + 4096\n"   // PDPT: one entry
    "  movl $0x83, tables + 8192\n"                // PD: 2 MiB from 0
    "  movl %cr4, %eax\n  orl $0x20, %eax\n  movl %eax, %cr4\n"
    "  movl $tables, %eax\n  movl %eax, %cr3\n"
    "  movl $0xC0000080, %ecx\n  rdmsr\n  orl $0x100, %eax\n  wrmsr\n"
    "  movl %cr0, %eax\n  orl $0x80000000, %eax\n  movl %eax, %cr0\n"
    "  lgdt gdtr\n"
    "  ljmp $8, $long_mode\n"
    ".code64\n"
    "long_mode:\n"
    "  movl $16, %eax\n  movl %eax, %ds\n  movl %eax, %es\n  movl %eax, %ss\n"
    "  xorl %ebp, %ebp\n"
    "  call guest_main\n"
    ".align 8\n"
    "gdt: .quad 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF\n"
    "gdtr: .word 23\n .long gdt\n"
    ".text\n");

unsigned char stack[16384] __attribute__((aligned(16)));
unsigned char tables[3 * 4096] __attribute__((aligned(4096)));
volatile unsigned long counter;
volatile unsigned long watched;

__attribute__((noinline)) unsigned long innermost(unsigned long value) {
  counter = counter + 1;
  if (counter % 64 == 0) watched = watched + value;
  return counter;
}

__attribute__((noinline)) unsigned long middle(unsigned long value) {
  return innermost(value + 1) + 1;
}

__attribute__((noinline)) unsigned long outer(unsigned long value) { return middle(value + 1) + 1; }

__attribute__((noreturn, used)) void guest_main(void) {
  for (;;) outer(5);
}
