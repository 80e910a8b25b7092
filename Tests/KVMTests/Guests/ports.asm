; SPDX-License-Identifier: Apache-2.0
; One OUT, one IN whose answer goes out again, string input and output, and HLT.
bits 16
org 0x1000
  mov al, 0x42
  out 0x80, al
  mov dx, 0x1F0
  in ax, dx
  mov dx, 0x3F8
  out dx, ax
  cld
  mov di, 0x3000
  mov cx, 8
  mov dx, 0x1F0
  rep insw
  mov si, 0x3000
  mov cx, 8
  mov dx, 0x1F2
  rep outsw
  hlt
