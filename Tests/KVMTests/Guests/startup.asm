; SPDX-License-Identifier: Apache-2.0
; vCPU 0, in flat protected mode, starts vCPU 1 at 2000h, which answers on port 81h.
bits 32
org 0x1000
  mov dword [0xFEE000F0], 0x1FF
  mov dword [0xFEE00310], 1 << 24
  mov dword [0xFEE00300], 0x4500
  mov dword [0xFEE00310], 1 << 24
  mov dword [0xFEE00300], 0x4602
  mov al, 1
  out 0x80, al
  hlt
times 0x1000 - ($ - $$) nop
bits 16
  mov al, 7
  out 0x81, al
again:
  hlt
  jmp again
