; SPDX-License-Identifier: Apache-2.0
; CPU 0 counts at 0914h while CPU 1 reads the example device, once, as long as that takes.
%include "common.inc"
start:
  cli
  xor ax, ax
  mov ds, ax
  mov ss, ax
  mov sp, 0x800
  mov ax, 0x0600
  mov es, ax
  mov si, others
  xor di, di
  mov cx, others.end - others
  cs rep movsb
  lgdt [cs:descriptor]
  mov eax, cr0
  or al, 1
  mov cr0, eax
  mov bx, 8
  mov gs, bx
  and al, 0xFE
  mov cr0, eax
  mov dword [gs:dword 0xFEE000F0], 0x1FF
  mov dword [gs:dword 0xFEE00300], 0x000C4500
  mov cx, 0x1000
.pause:
  in al, 0x80
  loop .pause
  mov dword [gs:dword 0xFEE00300], 0x000C4606
.count:
  inc dword [0x914]
  mov dx, 0x3FF
  in al, dx
  jmp .count

others:
  xor ax, ax
  mov ds, ax
  mov dword [0x918], 1
  mov dx, 0x563
  in eax, dx
  mov [0x91C], eax
  mov dword [0x918], 2
.halt:
  hlt
  jmp .halt
.end:

align 8
table:
  dq 0
  dq 0x00CF92000000FFFF
descriptor:
  dw 15
  dd 0xF0000 + table
reset_vector start
