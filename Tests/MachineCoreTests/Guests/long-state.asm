; SPDX-License-Identifier: Apache-2.0
; 64-bit mode: paging with its accessed and dirty bits, wide arithmetic, an interrupt.
%include "flat.inc"
main:
  ; Tables at 10000h: the first 2 MiB in 4 KiB pages one to one, the next in a large one, and
  ; page 8000h at the end of the first two.
  mov dword [0x10000], 0x11003
  mov dword [0x11000], 0x12003
  mov dword [0x12000], 0x13003
  mov dword [0x12008], 0x200083
  mov ebx, 0x13000
  mov eax, 3
.map:
  mov [ebx], eax
  add eax, 0x1000
  add ebx, 8
  cmp ebx, 0x14000
  jb .map
  mov dword [0x13FF8], 0x8003
  mov eax, 0x20
  mov cr4, eax
  mov eax, 0x10000
  mov cr3, eax
  mov ecx, 0xC0000080
  mov eax, 0x100
  xor edx, edx
  wrmsr
  mov eax, 0x80000011
  mov cr0, eax
  jmp dword 0x28:0xF0000 + wide
bits 64
wide:
  mov dword [0x1FF010], 0x5A5A5A5A
  mov eax, [0x200000]
  mov rax, 0x123456789ABCDEF0
  mov rbx, rax
  mul rbx
  mov [0x2000], rax
  mov [0x2008], rdx
  mov r8, 0xFFFFFFFF80000000
  movsxd r9, r8d
  lea r10, [r8 + r9 * 4 + 5]
  add r10, r8
  pushfq
  pop qword [0x2010]
  mov r11, r10
  rcl r11, 13
  pushfq
  pop qword [0x2018]
  mov rdi, 0x3000
  mov rcx, 64
  rep stosq
  mov rsi, 0x3000
  mov rdi, 0x4001
  mov rcx, 100
  rep movsb
  mov r12, -7
  xor edx, edx
  mov rax, 1000000007
  mov r13, 12345
  div r13
  mov r14, rdx
  bsr r15, rax
  cqo
  cmovs rbx, rax
  sete bl
  ; Vector 20h by the PIC.
  mov rax, 0xF0000 + interrupt
  mov [0x5200], ax
  mov dword [0x5202], 0x8E000028
  shr rax, 16
  mov [0x5206], ax
  mov qword [0x5208], 0
  outb 0x20, 0x11
  outb 0x21, 0x20
  outb 0x21, 0x04
  outb 0x21, 0x01
  outb 0x21, 0xFE
  outb 0x43, 0x30
  outb 0x40, 0x20
  outb 0x40, 0
  xor ebp, ebp
.wait:
  cli
  test ebp, ebp
  jnz .come
  sti
  hlt
  jmp .wait
.come:
  outb 0x21, 0xFF
  xor eax, eax
  mov ecx, 1
  sub eax, ecx
  mov dword [0xFF8], 0x600D600D
.stop:
  hlt
  jmp .stop
interrupt:
  inc ebp
  push rax
  mov al, 0x20
  out 0x20, al
  pop rax
  iretq
bits 16
reset_vector start
