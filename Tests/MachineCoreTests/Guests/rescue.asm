; SPDX-License-Identifier: Apache-2.0
; In 64-bit mode at CPL 0, what some KVMs fail on: breakpoints, SSE, CMPXCHG16B, POPCNT, XSAVE.
%include "common.inc"
start:
  cli
  xor ax, ax
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov sp, 0x800
  cld
  ; Page tables at 3000h: the first 2 MiB one to one, and the last of the first 4 GiB.
  mov di, 0x3000
  mov cx, 0x3000
  xor al, al
  rep stosb
  mov dword [0x3000], 0x4003
  mov dword [0x4000], 0x5003
  mov dword [0x5000], 0x0083
  ; The tables into RAM, where everybody finds them.
  mov si, tables
  mov di, 0x7000
  mov cx, tables_end - tables
  cs rep movsb
  mov si, code
  mov di, 0x8000
  mov cx, code_end - code
  cs rep movsb
  o32 lgdt [cs:gdt_pointer]
  mov eax, 0x620             ; PAE, OSFXSR, OSXMMEXCPT
  mov cr4, eax
  mov eax, 0x3000
  mov cr3, eax
  mov ecx, 0xC0000080
  mov eax, 0x100
  xor edx, edx
  wrmsr
  mov eax, 0x80000033
  mov cr0, eax
  jmp dword 8:0x8000

gdt_pointer:
  dw 23
  dd 0x7000
align 8
tables:
  dq 0
  dq 0x00AF9B000000FFFF
  dq 0x00CF93000000FFFF
tables_end:

code:
bits 64
%define at(label) (0x8000 + label - code)
  mov eax, 16
  mov ds, eax
  mov es, eax
  mov ss, eax
  mov esp, 0x7F00
  ; Vector 3 of a table at 9000h.
  mov dword [0x9030], 0x00080000 | at(breakpoint)
  mov dword [0x9034], 0x00008E00
  mov qword [0x9038], 0
  mov word [0x7100], 0xFFF
  mov qword [0x7102], 0x9000
  lidt [0x7100]
  xor ebx, ebx
  mov r12d, 3
.again:
  int3
  dec r12d
  jnz .again
  mov [RESULTS], ebx                       ; 0: three breakpoints

  ; Packed arithmetic.
  mov rax, 0x0000000200000001
  movq xmm0, rax
  mov rax, 0x0000002000000010
  movq xmm1, rax
  paddd xmm0, xmm1
  movq [RESULTS + 4], xmm0                 ; 1, 2: 11h, 22h
  mov eax, 7
  cvtsi2sd xmm2, eax
  addsd xmm2, xmm2
  cvttsd2si ecx, xmm2
  mov [RESULTS + 12], ecx                  ; 3: 14

  ; CMPXCHG16B: one that fits, and one that does not.
  mov qword [0xA000], 1
  mov qword [0xA008], 2
  mov eax, 1
  mov edx, 2
  mov ebx, 0x33
  mov ecx, 0x44
  lock cmpxchg16b [0xA000]
  setz [RESULTS + 16]                      ; 4: 1
  mov eax, [0xA008]
  mov [RESULTS + 20], eax                  ; 5: 44h
  xor eax, eax
  xor edx, edx
  lock cmpxchg16b [0xA000]
  mov [RESULTS + 24], eax                  ; 6: 33h
  mov [RESULTS + 28], edx                  ; 7: 44h

  mov eax, 0xF0F0F
  popcnt ecx, eax
  mov [RESULTS + 32], ecx                  ; 8: 12

  ; The state of the vector registers, saved and restored.
  fxsave [0xB000]
  pxor xmm0, xmm0
  fxrstor [0xB000]
  movd [RESULTS + 36], xmm0                ; 9: 11h

  ; x87 arithmetic.
  fninit
  fld1
  fld1
  faddp
  fistp dword [RESULTS + 40]               ; 10: 2

  ; A register of the example device as the operand of such an instruction.
  mov dword [RESULTS - 8], 0x600D600D
.stop:
  hlt
  jmp .stop

breakpoint:
  inc ebx
  iretq
code_end:
bits 16
reset_vector start
