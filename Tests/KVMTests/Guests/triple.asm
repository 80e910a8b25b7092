; SPDX-License-Identifier: Apache-2.0
; An undefined instruction without an interrupt table, in 64-bit mode.
bits 64
org 0x1000
  lidt [none]
  ud2
none: dw 0
  dq 0
