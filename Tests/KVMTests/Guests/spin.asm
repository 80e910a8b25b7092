; SPDX-License-Identifier: Apache-2.0
; Says that it runs, and runs for ever.
bits 16
org 0x1000
  mov al, 1
  out 0x80, al
again:
  inc ecx
  jmp again
