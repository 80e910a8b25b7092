; SPDX-License-Identifier: Apache-2.0
; Unpaged 32-bit mode: segments with limits, far calls, an interrupt by the PIC, 16-bit code.
%include "flat.inc"
main:
  gate 0x20, interrupt
  mov eax, 0x30
  mov fs, eax
  mov dword [fs:0x10], 0xCAFEBABE
  mov eax, [0x1010]
  note
  mov esi, 0x2000
  mov ecx, 16
  xor eax, eax
.fill:
  imul eax, eax, 1103515245
  add eax, 12345
  note
  pushfd
  pop dword [edi]
  add edi, 4
  dec ecx
  jnz .fill
  mov ecx, 30
  lea ebx, [edi]
  mov edi, 0x3000
  rep movsd
  mov edi, 0x3000
  mov al, 0x39
  mov ecx, 120
  repne scasb
  mov [0x3100], ecx
  lea edi, [ebx]
  call dword 8:0xF0000 + distant
  ; Into 16-bit code and back.
  call dword 0x18:narrow
  mov eax, 0x12345678
  bswap eax
  note
  xadd eax, ebx
  cmpxchg ebx, ecx
  setc al
  cdq
  note
  ; Line 0 by the PIC.
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
  sgdt [0x3200]
  sidt [0x3208]
  smsw [0x3210]
  mov ebx, 0x10203040
  mov ecx, 0
  cmp ebx, ecx
  mov dword [0xFF8], 0x600D600D
.stop:
  hlt
  jmp .stop
distant:
  add dword [0x3104], 7
  retf
interrupt:
  inc ebp
  push eax
  mov al, 0x20
  out 0x20, al
  pop eax
  iretd
bits 16
narrow:
  push ds
  push word 0x20
  pop ds
  mov word [0x3108], 0x4321
  pop ds
  o32 retf
reset_vector start
