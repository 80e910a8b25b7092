; SPDX-License-Identifier: Apache-2.0
; A write and a read in the VGA window, a write to read-only memory, and HLT.
bits 16
org 0x1000
  mov ax, 0xA000
  mov es, ax
  mov word [es:4], 0xBEEF
  mov eax, [es:8]
  mov [0x3000], eax
  mov ax, 0xF000
  mov es, ax
  mov al, [es:0]
  mov byte [es:0x10], 0x55
  mov ah, [es:0x10]
  mov [0x3004], ax
  hlt
