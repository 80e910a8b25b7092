; SPDX-License-Identifier: Apache-2.0
; A 64 KiB firmware that ends the machine with its first instructions: a line break to the debug
; console, which is written out at once, and 16 to the debug exit port (exit code 33).
bits 16
org 0
  times 0xFFF0 db 0xF4
  mov dx, 0x402
  mov al, 10
  out dx, al
  mov al, 16
  out 0xF4, al
  hlt
  times 0x10000 - ($ - $$) db 0xF4
