; SPDX-License-Identifier: Apache-2.0
; Sets up the first 8259, says so on port 80h, and waits for line 4.
bits 16
org 0x1000
  cli
  mov word [0x0C * 4], handler
  mov word [0x0C * 4 + 2], 0
  mov al, 0x11
  out 0x20, al
  mov al, 0x08
  out 0x21, al
  mov al, 0x04
  out 0x21, al
  mov al, 0x01
  out 0x21, al
  mov al, 0xEF
  out 0x21, al
  mov al, 1
  out 0x80, al
idle:
  sti
  hlt
  jmp idle
handler:
  mov al, 2
  out 0x80, al
  mov al, 0x20
  out 0x20, al
  iret
