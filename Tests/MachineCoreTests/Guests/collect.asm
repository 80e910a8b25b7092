; SPDX-License-Identifier: Apache-2.0
; Both processors write numbers, one after the other, into the display's window and its posted
; port 3C0h, and look at times which number the device has seen last: at 3C8h (CPU 0) or 3CAh
; (CPU 1). Bit 15 of a number is the processor; the wrong answers are counted at 0904h.
%include "common.inc"
%define ERRORS 0x904
start:
  cli
  xor ax, ax
  mov ds, ax
  mov ss, ax
  mov sp, 0x800
  start_others
  jmp 0x0600:0

others:
  xor ax, ax
  mov ds, ax
  mov ax, 0xB800
  mov es, ax
  mov eax, 1
  cpuid
  shr ebx, 24
  mov bp, bx
  shl bp, 1                 ; 0 or 2
  mov bx, bp
  shl bx, 14                ; 0 or 8000h
  mov di, bx
  shr di, 1
  mov cx, 40
.round:
  mov si, 20
.cell:
  inc bx
  mov [es:di], bx
  add di, 2
  dec si
  jnz .cell
  inc bx
  mov dx, 0x3C0
  mov ax, bx
  out dx, ax
  inc bx
  mov [es:di], bx
  add di, 2
  test cl, 7
  jnz .next
  mov dx, 0x3C8
  add dx, bp
  in ax, dx
  cmp ax, bx
  je .next
  lock inc word [ERRORS]
.next:
  loop .round
  lock inc dword [RESULTS - 8]
.halt:
  hlt
  jmp .halt
.end:

reset_vector start
