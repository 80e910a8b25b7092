; SPDX-License-Identifier: Apache-2.0
; CPU 1 writes 3000 numbers into the display's window, more than any ring holds; CPU 0 counts at
; 0914h, and asks a port that nobody has.
%include "common.inc"
start:
  cli
  xor ax, ax
  mov ds, ax
  mov ss, ax
  mov sp, 0x800
  start_others
.count:
  inc dword [0x914]
  mov dx, 0x3FF
  in al, dx
  jmp .count

others:
  xor ax, ax
  mov ds, ax
  mov ax, 0xB800
  mov es, ax
  xor bx, bx
  xor di, di
.cell:
  inc bx
  mov [es:di], bx
  add di, 2
  cmp bx, 3000
  jne .cell
  mov dword [RESULTS - 8], 1
.halt:
  hlt
  jmp .halt
.end:

reset_vector start
