; SPDX-License-Identifier: Apache-2.0
; Writes to pages 3, 5 and 6.
bits 16
org 0x1000
  mov byte [0x3000], 1
  mov byte [0x5FFF], 1
  mov byte [0x6000], 1
  hlt
