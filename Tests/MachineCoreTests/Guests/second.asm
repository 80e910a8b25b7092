; SPDX-License-Identifier: Apache-2.0
; CPU 0 counts at 0914h while CPU 1 reads the example device, once, as long as that takes.
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
  mov dword [0x918], 1
  mov dx, 0x563
  in eax, dx
  mov [0x91C], eax
  mov dword [0x918], 2
.halt:
  hlt
  jmp .halt
.end:

reset_vector start
