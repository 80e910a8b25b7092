; SPDX-License-Identifier: Apache-2.0
; An interrupt without an interrupt table.
bits 16
org 0x1000
  lidt [none]
  int 0x20
  hlt
none: dw 0, 0, 0
