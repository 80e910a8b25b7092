; SPDX-License-Identifier: Apache-2.0
; Turns the machine off (S5) through the power management's PM1a control register, whose place it
; reads from the PCI function 01.3.
%include "boot.inc"
main:
  call serial_init
  mov si, text
  call puts
  mov eax, 0x80000B40
  mov dx, 0xCF8
  out dx, eax
  mov dx, 0xCFC
  in ax, dx
  and ax, 0xFFC0
  add ax, 4
  mov dx, ax
  mov ax, 0x2000
  out dx, ax
  cli
stop:
  hlt
  jmp stop
text: db "off", 10, 0
BOOT_END
